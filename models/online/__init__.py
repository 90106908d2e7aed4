"""The online model: a learner fills pair tables and popularity from the stream, and one graph ranks with them.

In the order in which data flows:

1. :mod:`models.online.lessons`: what an accepted event teaches, summed over a second. Made where histories are.
2. :mod:`models.online.pair_table`, :mod:`models.online.item_popularity`, :mod:`models.online.score_weights`: what the
   learner keeps, all of it without users. :mod:`models.online.learner` merges lessons, and publishes updates.
3. :mod:`models.online.tables`: what a scorer has of them: arrays that updates replace row by row.
4. :mod:`models.online.blend_graph`: the ONNX graph whose tables and weights are inputs;
   :mod:`models.online.blend` runs it.

Nothing here reads a clock, draws random numbers, or knows Kafka, Flink or Redis: the same lessons in the same order
give the same tables and the same lists, byte for byte.
"""

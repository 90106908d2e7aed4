"""Offline evaluation: what the lists of a shop would have been on a file of its events, and how good they are.

In the order in which data flows:

1. :mod:`evaluation.steps`: the events of a file as steps, and which of them a protocol asks about and teaches.
2. :mod:`evaluation.job_twin`: the job without Flink, Kafka and Redis. It calls the rules that the operators call, with
   the event's time as the clock, so that a list made here is the list that the job writes.
3. :mod:`evaluation.methods`, :mod:`evaluation.simple_methods`, :mod:`evaluation.session_knn`: what is compared.
4. :mod:`evaluation.side_by_side` asks and teaches them; :mod:`evaluation.measures` compares lists with what followed,
   and :mod:`evaluation.bootstrap` gives intervals.
5. :mod:`evaluation.study` puts it together, :mod:`evaluation.report_page` writes it as a page.
"""

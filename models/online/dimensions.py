"""The sizes and constants of the online model. They are part of its byte formats, and so not settings."""

from typing import Final

from models.manifest import RECENT_ITEMS_MAX
from schemas.topics import DAY_MS, HOUR_MS

LAGS: Final = 10
"""How many items back an event forms pairs with."""
LAG_DECAY: Final = 0.8
"""What a pair counts beside the pair of the next newer item, in learning and in ranking."""
NEAR_LAGS: Final = 5
"""Within how many items two items count as met together, in either order."""
PAIR_HALF_LIFE_MS: Final = 30 * DAY_MS
"""After this time a pair counts half."""
POPULARITY_HALF_LIVES_MS: Final = (6 * HOUR_MS, DAY_MS, 7 * DAY_MS, 60 * DAY_MS)
POPULARITIES: Final = len(POPULARITY_HALF_LIVES_MS)

SLOTS: Final = 128
"""Pairs that the learner keeps of an item."""
CHANNELS: Final = ("follows", "near", "next", "cosine")
"""What the table says of a neighbour, in this order."""
NEIGHBOURS: Final = 32
"""Pairs of an item that are published, the best of its slots."""
USER_BITS: Final = 64
"""Users set one of so many bits of an item or a pair: distinct bits never outnumber distinct users."""
EVENTS_OF_A_USER: Final = 4.0
"""What the users of an item can add to its count on average, at most: a flood by one user makes no item popular."""
CLOSE: Final = 8
FAR_NEIGHBOURS: Final = 16
"""Of the history, only so many of the newest items bring all their neighbours to a list, the others the best 16."""

FRONT: Final = 64
"""Items that are candidates of every list: popular ones and the newest."""
NEWEST: Final = 16
"""Of them, so many are the newest."""
CANDIDATES: Final = 128
"""Of fewer than 806 columns: from this share on, onnxruntime selects (nth_element) instead of keeping a heap."""
FEATURES: Final = 24
OWN_ITEMS: Final = 64
"""Items of the user whose counts are features, the last that they met."""
LENGTHS: Final = (1, 3, 9)
"""Histories up to these lengths, and longer ones, have weights of their own beside the shared ones."""
CONTEXTS: Final = len(LENGTHS) + 1
HISTORY: Final = RECENT_ITEMS_MAX

MIX: Final = {"follows": 0.45, "near": 0.2, "next": 0.2, "recent": 0.1, "own": 0.1, "popular": 0.05}
"""How candidates are chosen: what each source counts. The order of a list comes from learned weights instead."""
EPSILON: Final = 1e-6

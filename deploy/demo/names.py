"""The word lists from which the simulated shop's catalogue of named items is generated."""

from typing import Final, NamedTuple

from schemas.catalogue import CatalogueItem


class Shelf(NamedTuple):
    """The items of one category: each quality combined with each thing."""

    things: tuple[str, ...]
    qualities: tuple[str, ...]


SHELVES: Final[dict[str, Shelf]] = {
    "tea": Shelf(
        ("Sencha Green Tea", "Oolong Tea", "Darjeeling Tea", "Earl Grey Tea", "Matcha Powder", "Rooibos Tea"),
        ("Organic", "First Flush", "Loose Leaf", "Mountain", "Jasmine", "Autumn"),
    ),
    "running": Shelf(
        ("Running Shoes", "Running Shorts", "Running Vest", "Running Socks", "Running Cap", "Running Jacket"),
        ("Trail", "Road", "Marathon", "Winter", "Featherweight", "Reflective"),
    ),
    "knitting": Shelf(
        ("Sock Yarn", "Chunky Yarn", "Lace Yarn", "Shawl Kit", "Jumper Kit", "Baby Blanket Kit"),
        ("Merino", "Alpaca", "Cotton", "Mohair", "Hand-Dyed", "Recycled"),
    ),
    "camping": Shelf(
        ("Tent", "Sleeping Bag", "Camping Stove", "Rucksack", "Camp Chair", "Lantern"),
        ("Ultralight", "Two-Person", "Four-Season", "Family", "Folding", "Alpine"),
    ),
    "coffee": Shelf(
        ("Espresso Beans", "Filter Coffee", "Cold Brew", "Coffee Capsules", "Ground Coffee", "Coffee Sampler"),
        ("Dark Roast", "Single Origin", "Ethiopian", "Decaf", "Honey Process", "House Blend"),
    ),
    "books": Shelf(
        ("Crime Novel", "Ghost Stories", "Travel Diary", "Love Story", "Book of Poems", "Cookbook"),
        ("Nordic", "Victorian", "Coastal", "Village", "Midnight", "Forgotten"),
    ),
    "garden": Shelf(
        ("Tomato Seeds", "Watering Can", "Pruning Shears", "Planter", "Trowel", "Herb Kit"),
        ("Heirloom", "Balcony", "Copper", "Greenhouse", "Cottage", "Little Gardener's"),
    ),
    "cycling": Shelf(
        ("Bicycle", "Cycling Helmet", "Pannier", "Saddle", "Bike Light", "Cycling Gloves"),
        ("Gravel", "Commuter", "Touring", "Racing", "City", "Mountain"),
    ),
    "kitchen": Shelf(
        ("Frying Pan", "Casserole", "Saucepan", "Wok", "Kettle", "Baking Dish"),
        ("Cast Iron", "Copper", "Enamelled", "Ceramic", "Non-Stick", "Steel"),
    ),
    "music": Shelf(
        ("Guitar", "Ukulele", "Violin", "Bass", "Mandolin", "Banjo"),
        ("Acoustic", "Electric", "Travel", "Vintage", "Beginner's", "Concert"),
    ),
    "games": Shelf(
        ("Board Game", "Card Game", "Dice Game", "Jigsaw Puzzle", "Word Game", "Railway Game"),
        ("Cooperative", "Family", "Pocket", "Strategy", "Classic", "Legendary"),
    ),
    "pets": Shelf(
        ("Cat Bed", "Dog Bed", "Cat Tree", "Dog Lead", "Pet Carrier", "Scratching Post"),
        ("Cosy", "Woollen", "Rattan", "Washable", "Travel", "Deluxe"),
    ),
}
CATEGORIES: Final[tuple[str, ...]] = tuple(SHELVES)
THINGS_PER_SHELF: Final = 6
QUALITIES_PER_SHELF: Final = 6
ITEMS_PER_SHELF: Final = THINGS_PER_SHELF * QUALITIES_PER_SHELF

# fmt: off
FIRST_NAMES: Final = (
    "ada", "ben", "chloe", "dev", "eva", "finn", "grace", "hugo", "iris", "jan",
    "kira", "leo", "maya", "noah", "olga", "pia", "quinn", "rosa", "sam", "tara",
    "uma", "vera", "will", "xena", "yann", "zoe", "alba", "bruno", "cora", "dina",
    "emil", "flora", "gino", "hana", "igor", "jule", "karl", "lena", "milo", "nora",
)
# fmt: on


def catalogue() -> list[CatalogueItem]:
    """All items, ordered by shelf and, within a shelf, by thing.

    >>> catalogue()[0].item_id, catalogue()[0].name, len(catalogue())
    ('tea-01', 'Organic Sencha Green Tea', 432)
    """
    return [
        CatalogueItem(f"{category}-{number:02d}", f"{quality} {thing}", category)
        for category, shelf in SHELVES.items()
        for number, (thing, quality) in enumerate(
            ((thing, quality) for thing in shelf.things for quality in shelf.qualities), start=1
        )
    ]


def things() -> dict[str, str]:
    """What each item is, whatever its quality.

    >>> things()["tea-01"] == things()["tea-06"], things()["tea-06"] == things()["tea-07"]
    (True, False)
    """
    return {
        item.item_id: f"{item.category} {place % ITEMS_PER_SHELF // QUALITIES_PER_SHELF}"
        for place, item in enumerate(catalogue())
    }

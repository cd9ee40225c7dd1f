# SPDX-License-Identifier: Apache-2.0
"""What the demo model knows: small tables of common knowledge. Data only; the questions are asked elsewhere."""

from __future__ import annotations


def words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


def _pairs(text: str) -> tuple[tuple[str, str], ...]:
    """ "a=b, c=d" as pairs."""
    pairs = (part.partition("=") for part in " ".join(text.split()).split(", "))
    return tuple((left, right) for left, _, right in pairs)


# Things, with their article, and their colour.
COLORS = _pairs(
    "the sky=blue, grass=green, snow=white, the sun=yellow, a banana=yellow, a lemon=yellow, a tomato=red, "
    "blood=red, coal=black, milk=white, a carrot=orange, an orange=orange, the night=black, a frog=green, "
    "chocolate=brown, the sea=blue, a leaf=green, a flamingo=pink, an elephant=gray, a strawberry=red, a pig=pink, "
    "a cherry=red, a pumpkin=orange, salt=white, a crow=black, a plum=purple, an olive=green, a cloud=white, "
    "a fire truck=red, wood=brown"
)
COLOR_NAMES = tuple(sorted({color for _, color in COLORS}))

OPPOSITES = _pairs(
    "hot=cold, big=small, up=down, day=night, black=white, good=bad, happy=sad, fast=slow, tall=short, open=closed, "
    "old=young, hard=soft, wet=dry, left=right, full=empty, early=late, near=far, high=low, rich=poor, strong=weak, "
    "light=dark, clean=dirty, loud=quiet, easy=difficult, first=last, in=out, yes=no, true=false, win=lose, buy=sell, "
    "love=hate, begin=end, sweet=sour, thick=thin, wide=narrow, push=pull, above=below, before=after, always=never, "
    "heavy=light"
)

CAPITALS = _pairs(
    "France=Paris, Germany=Berlin, Italy=Rome, Spain=Madrid, Portugal=Lisbon, England=London, Ireland=Dublin, "
    "Austria=Vienna, Poland=Warsaw, Greece=Athens, Norway=Oslo, Sweden=Stockholm, Finland=Helsinki, "
    "Denmark=Copenhagen, Russia=Moscow, Turkey=Ankara, Egypt=Cairo, Kenya=Nairobi, Japan=Tokyo, China=Beijing, "
    "India=New Delhi, Canada=Ottawa, Mexico=Mexico City, Brazil=Brasilia, Peru=Lima, Cuba=Havana, Chile=Santiago, "
    "Australia=Canberra, Belgium=Brussels, Hungary=Budapest"
)

DAYS = words("Monday Tuesday Wednesday Thursday Friday Saturday Sunday")
MONTHS = words("January February March April May June July August September October November December")

SOUNDS = _pairs(
    "cow=moo, dog=woof, cat=meow, duck=quack, sheep=baa, pig=oink, horse=neigh, lion=roar, mouse=squeak, bee=buzz, "
    "snake=hiss, owl=hoot, frog=ribbit, crow=caw, rooster=cock-a-doodle-doo, bird=tweet"
)

YOUNG = _pairs(
    "dog=puppy, cat=kitten, cow=calf, horse=foal, sheep=lamb, pig=piglet, duck=duckling, hen=chick, bear=cub, "
    "deer=fawn, lion=cub, goat=kid, kangaroo=joey, frog=tadpole, swan=cygnet, eagle=eaglet"
)

LEGS = _pairs(
    "dog=four, cat=four, horse=four, cow=four, bird=two, duck=two, hen=two, spider=eight, ant=six, bee=six, snake=no, "
    "fish=no, worm=no, beetle=six, pig=four, mouse=four"
)

# What something is.
KINDS = _pairs(
    "dog=animal, cat=animal, horse=animal, lion=animal, frog=animal, rose=flower, tulip=flower, daisy=flower, "
    "lily=flower, apple=fruit, banana=fruit, pear=fruit, plum=fruit, cherry=fruit, oak=tree, pine=tree, "
    "birch=tree, carrot=vegetable, potato=vegetable, onion=vegetable, car=vehicle, bus=vehicle, train=vehicle, "
    "drum=instrument, piano=instrument, violin=instrument, hammer=tool, saw=tool, table=piece of furniture, "
    "chair=piece of furniture, bed=piece of furniture, red=color, blue=color, Monday=day, May=month"
)
KIND_NAMES = tuple(sorted({kind for _, kind in KINDS}))

ABILITIES = words("fly swim read talk bark climb")
# Who can do what; everyone else in the table cannot.
ABLE = {
    "bird": {"fly"},
    "duck": {"fly", "swim"},
    "bee": {"fly"},
    "owl": {"fly"},
    "fish": {"swim"},
    "whale": {"swim"},
    "frog": {"swim"},
    "dog": {"bark", "swim"},
    "cat": {"climb"},
    "monkey": {"climb"},
    "squirrel": {"climb"},
    "child": {"read", "talk", "climb"},
    "teacher": {"read", "talk"},
    "stone": set(),
    "table": set(),
    "snail": {"climb"},
}

AMOUNTS = (
    ("days", "a week", "There are seven days in a week."),
    ("months", "a year", "There are twelve months in a year."),
    ("hours", "a day", "There are twenty-four hours in a day."),
    ("minutes", "an hour", "There are sixty minutes in an hour."),
    ("seconds", "a minute", "There are sixty seconds in a minute."),
    ("seasons", "a year", "There are four seasons in a year."),
    ("wheels", "a car", "There are four wheels on a car."),
    ("fingers", "a hand", "There are five fingers on a hand."),
    ("legs", "a chair", "There are four legs on a chair."),
    ("letters", "the alphabet", "There are twenty-six letters in the alphabet."),
    ("colors", "a rainbow", "There are seven colors in a rainbow."),
    ("sides", "a square", "There are four sides on a square."),
    ("sides", "a triangle", "There are three sides on a triangle."),
)

LISTS = {
    "colors": ("red", "blue", "green", "yellow", "black"),
    "fruits": ("apples", "pears", "plums", "cherries", "bananas"),
    "animals": ("dogs", "cats", "horses", "lions", "frogs"),
    "flowers": ("roses", "tulips", "daisies", "lilies", "poppies"),
    "vegetables": ("carrots", "potatoes", "onions", "beans", "peas"),
    "days": ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday"),
    "months": ("January", "February", "March", "April", "May"),
    "trees": ("oaks", "pines", "birches", "maples", "elms"),
    "cities": ("Paris", "London", "Rome", "Tokyo", "Berlin"),
    "tools": ("hammers", "saws", "drills", "rulers", "knives"),
    "instruments": ("drums", "pianos", "violins", "flutes", "guitars"),
}

CITIES = (
    *words(
        "Paris London Rome Berlin Madrid Tokyo Oslo Vienna Lisbon Dublin Athens Prague Moscow Cairo Lima Boston "
        "Chicago Denver Seattle Toronto Sydney Mumbai Delhi Beijing Seoul Bangkok Nairobi Lagos Zurich Geneva "
        "Munich Hamburg Lyon Milan Naples Porto Warsaw Helsinki Stockholm Copenhagen Brussels Amsterdam Budapest "
        "Havana Santiago Ottawa Dallas Miami Austin Phoenix Houston Atlanta Portland Montreal Vancouver Melbourne "
        "Istanbul Ankara Dubai Singapore Jakarta Manila Hanoi Osaka Kyoto Bordeaux Marseille Nice Barcelona "
        "Valencia Florence Venice Turin"
    ),
    *("New York", "San Francisco", "Los Angeles", "Mexico City", "Hong Kong", "Cape Town", "Buenos Aires", "New Delhi"),
)

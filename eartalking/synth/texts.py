"""Sentences for the synthetic voices: a small grammar, and strings of dictionary words for rare sound pairs.

A sentence belongs to exactly one split, decided by a hash of its text, so that no text of the validation
or test clips is ever spoken in training.
"""

import hashlib
from collections.abc import Sequence

import numpy as np

SPLITS = ("train", "val", "test")


def _phrases(text: str) -> list[str]:
    return [phrase.strip() for phrase in text.split("|")]


_PEOPLE = _phrases("""
    my brother|her neighbour|the old captain|a young doctor|our teacher|the baker|their lawyer|
    a quiet visitor|the mayor|Barbara|Victor|Samuel|Fiona|my grandmother|the whole team|two painters|
    the new manager|a farmer from the valley|everybody|nobody here|the pilot|those boys|
    the girl in the blue coat|a famous writer|your cousin|the bus driver|Michael|Penelope|
    the violin player|his best friend|the people upstairs|a stranger|the chemist|five tourists|our family
""")
_THINGS = _phrases("""
    the wooden bridge|a bowl of apples|the morning paper|an empty bottle|the broken window|
    a pair of boots|the map|five purple balloons|the last chapter|a cup of coffee|the garden gate|
    his umbrella|a very long letter|the power supply|fresh bread|the phone bill|
    a photograph of the beach|the recipe|both keys|the movie|her bicycle|a box of matches|the piano|
    some warm milk|the question|a heavy suitcase|the weather report|that beautiful vase|
    the yellow submarine|a bunch of flowers|the computer|an orange|the budget|a pound of butter|
    the final proof|the shop window|the river|old books|the problem
""")
_PLACES = _phrases("""
    in the kitchen|near the harbour|behind the station|at the market|on the top shelf|by the fire|
    under the table|over the hill|at the university|in the middle of the room|on a small island|
    outside the museum|along the river|in front of the house|at the back of the bus|
    between the two towers|above the village|beside the old mill|in Boston|across the street|
    around the corner|at the swimming pool|on the way home|in the north|far from the city
""")
_TIMES = _phrases("""
    yesterday|before breakfast|every Monday|in the early morning|on Friday|last summer|at half past five|
    after the show|during the storm|twice a week|for about an hour|in February|when the music stopped|
    a few days ago|once more|tonight|right after lunch|at the end of the month|while we were away|
    just before midnight|in the spring of that year
""")
_PAST = _phrases("""
    found|opened|carried|painted|forgot|bought|mentioned|broke|cleaned|noticed|borrowed|finished|moved|
    described|fixed|wanted|measured|photographed|enjoyed|sold|followed|shared|put away|looked for|
    watched|dropped|pushed|saved|chose
""")
_BASE = _phrases("""
    find|open|carry|paint|forget|buy|mention|break|clean|notice|borrow|finish|move|describe|fix|measure|
    enjoy|sell|follow|share|watch|drop|push|save|choose|bring|weigh|fold|show me|think about|pay for|
    believe in|improve
""")
_ADJECTIVES = _phrases("""
    beautiful|awful|very simple|strangely familiar|too expensive|perfectly clear|smooth and warm|
    a bit boring|impossible|better than before|pretty funny|half finished|completely wrong|worth a visit|
    surprisingly heavy|wet|blue and white|rather small|bigger than I remember|quite fragile|
    the most obvious choice|fine|brave|hopeless|obviously fake
""")
_OPENERS = _phrases("""
    well|actually|you know|to be honest|of course|maybe|in my opinion|oh no|wow|after all|for example|
    by the way|believe me|as far as I know|fortunately|hmm|yes|no|look|first of all|however
""")
_CLAUSES = _phrases("""
    I would rather wait|we have plenty of time|that was not the plan|it will probably rain|
    nobody told me|it works for me|the boat leaves at four|you should give it a try|I never saw it again|
    this happens quite often|they already know about it|we moved the meeting|the price went up again|
    that is all I can say|I must have been mistaken|she plays five instruments|
    he laughed about it for weeks|the answer surprised everyone|we both felt much better|
    you will probably love it
""")
_NUMBERS = _phrases("""
    one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|thirteen|fifteen|twenty|thirty five|
    forty|fifty one|sixty four|seventy|eighty eight|ninety nine|one hundred|five hundred and six|
    two thousand
""")

_WORDS = {"P": _PEOPLE, "T": _THINGS, "L": _PLACES, "W": _TIMES, "V": _PAST, "B": _BASE, "A": _ADJECTIVES,
          "O": _OPENERS, "C": _CLAUSES, "N": _NUMBERS}  # fmt: skip

# A single capital letter between braces is replaced by an entry of its list.
_TEMPLATES = (
    "{P} {V} {T} {L}.", "{P} {V} {T} {W}.", "{W}, {P} {V} {T}.", "{O}, {C}.", "{C}, but {P} {V} {T}.",
    "did {P} really {B} {T} {W}?", "please {B} {T} {L}.", "why would {P} {B} {T}?", "{T} was {A}.",
    "{T} {L} was {A}, and {C}.", "I think {T} is {A}.", "{O}, {T} was {A}!", "we need {N} of them {W}.",
    "{N}, {N}, {N}, {N}.", "the number is {N} {N} {N}.", "can you {B} {T} for {P}?",
    "{P} {V} {T}, and {P} {V} {T}.",
    "if {P} {V} {T}, {C}.", "{C} because {T} was {A}.", "it took {P} {N} minutes to {B} {T} {L}.",
    "there are {N} people {L} {W}.", "never {B} {T} {L}!", "what a pity, {C}.", "{C}.",
    "{T} and {T} were {L}.",
    "let us {B} {T} first, then {B} {T}.", "how many times did you {B} {T}?", "{P} said that {C}.",
)  # fmt: skip


def split_of_text(text: str, train_percent: int = 80, val_percent: int = 8) -> str:
    """The one split a text may be used in, by its hash; what train and val leave is test."""
    bucket = int.from_bytes(hashlib.sha256(text.lower().encode()).digest()[:4], "little") % 100
    return "train" if bucket < train_percent else "val" if bucket < train_percent + val_percent else "test"


def _from_grammar(rng: np.random.Generator) -> str:
    template = _TEMPLATES[rng.integers(len(_TEMPLATES))]
    for key, words in _WORDS.items():
        while f"{{{key}}}" in template:
            template = template.replace(f"{{{key}}}", words[rng.integers(len(words))], 1)
    return template[0].upper() + template[1:]


def _word_string(rng: np.random.Generator, lexicon: Sequence[str]) -> str:
    return " ".join(lexicon[i] for i in rng.integers(0, len(lexicon), rng.integers(4, 11))) + "."


def random_sentence(rng: np.random.Generator, split: str, lexicon: Sequence[str] = ()) -> str:
    """One English sentence of that split.

    Args:
        rng: source of randomness. split: "train", "val" or "test".
        lexicon: if given, every fifth sentence is a string of its words instead.

    Raises:
        ValueError: unknown split.
    """
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r}: expected one of {', '.join(SPLITS)}")
    while True:
        text = _word_string(rng, lexicon) if len(lexicon) and rng.random() < 0.2 else _from_grammar(rng)
        if split_of_text(text) == split:
            return text

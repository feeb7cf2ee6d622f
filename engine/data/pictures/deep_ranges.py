"""The black and white levels of a dataset's pictures of more than 8 bits, if they are not stated."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from itertools import islice
from math import isfinite
from threading import Lock

from engine.config.decoding import USUAL, Decoding, ValueRange
from engine.data.pictures.deep import usual_range
from engine.data.pictures.opening import deep_extremes
from engine.data.pictures.stored import Stored, UnreadablePicture
from engine.errors import InputError, problem
from engine.host.cores import num_cores
from engine.text import counted

LITTLE = 0.4  # of a range that pictures should use more of
TASK_PICTURES = 256  # whose headers are read before more are


class Ranges:
    """The range of each deep picture: that of its tags, or one for all that have none, of the numbers in all of them.

    pictures: gives all of the dataset, which are gone through when the first deep one without tags is met.
    decoding: how they are decoded, which says how large they may be.
    """

    def __init__(self, pictures: Callable[[], Iterable[Stored]], decoding: Decoding = USUAL):
        self._pictures, self._decoding, self._lock = pictures, decoding, Lock()
        self._tagged: Counter[ValueRange] = Counter()
        self._count, self._extremes, self._is_whole = 0, (0.0, 0.0), True
        self.untagged: ValueRange | None = None

    def __call__(self, tagged: ValueRange | None) -> ValueRange:
        """The range of a picture, by that of its tags."""
        with self._lock:
            if tagged is not None:
                self._tagged[tagged] += 1
                return tagged
            if self.untagged is None:
                self.untagged = self._found
            return self.untagged

    def recount(self) -> None:
        """Counts from 0: the first pictures were decoded to see what they are like, and are decoded again."""
        self._tagged.clear()

    @cached_property
    def _found(self) -> ValueRange:
        """Of the numbers in all pictures without tags; that of the tags, where others have them."""
        tags, lows, highs = set[ValueRange](), list[float](), list[float]()
        for found in self._gone_through():
            if found is not None and found[0] is not None:
                tags.add(found[0])
            elif found is not None and all(map(isfinite, found[1])):  # others are left out, or stop the run
                lows.append(found[1][0])
                highs.append(found[1][1])
                self._is_whole &= found[2]
        if not lows:  # it was read a moment ago
            raise ValueError("levels that could not be read again")
        self._count, self._extremes = len(lows), (min(lows), max(highs))
        if not tags:
            return usual_range(*self._extremes, self._is_whole)
        if len(tags) > 1:
            pictures = counted(len(lows), "picture")
            got = f"{pictures} of more than 8 bits without a range, others with {len(tags)} different ones"
            rule = "a range in the tags of all of them, or one that is set"
            remedy = "Say what is black and what is white: --data.levels 0 4095 or the like."
            raise InputError(problem("data.levels", got, rule, remedy))
        return tags.pop()

    def _gone_through(self) -> Iterator[tuple[ValueRange | None, ValueRange, bool] | None]:
        def read(picture: Stored) -> tuple[ValueRange | None, ValueRange, bool] | None:
            try:
                return deep_extremes(picture, self._decoding)
            except (UnreadablePicture, MemoryError):  # decoding will name it
                return None

        rest = iter(self._pictures())
        with ThreadPoolExecutor(num_cores(), thread_name_prefix="levels") as pool:
            while group := list(islice(rest, TASK_PICTURES)):
                yield from pool.map(read, group)

    def notes(self) -> list[str]:
        """What was guessed, and what differs, in words."""
        notes = []
        if self.untagged is not None:
            (low, high), (lowest, highest) = self.untagged, self._extremes
            chosen, held = f"{low:.8g} {high:.8g}", f"{lowest:.8g} {highest:.8g}"
            text = f"{self._count:,} pictures of more than 8 bits do not say what is black and what is white; they "
            text += (
                f"hold {held.replace(' ', ' to ')}, so {chosen.replace(' ', ' to ')} is taken: --data.levels {chosen}"
            )
            if 0 < highest - lowest < LITTLE * (high - low):
                text += f" pins it, and {held} would tell more levels apart"
            notes.append(text)
        if len(self._tagged) > 1:
            ((low, high), count), number = self._tagged.most_common(1)[0], self._tagged.total()
            text = f"{number:,} pictures of more than 8 bits have {len(self._tagged):,} ranges in their tags, each is "
            text += f"read by its own; most often ({count:,}) it is {low:.8g} to {high:.8g}"
            notes.append(f"{text}: --data.levels {low:.8g} {high:.8g} reads all alike")
        return notes

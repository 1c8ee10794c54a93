"""COCO's JSON files, read and checked: what is wrong is named by file, entry and field."""

from collections.abc import Container, Iterable
from dataclasses import dataclass
from pathlib import Path

from ..reading import is_whole, parsed_json
from .vocabulary import KEYPOINTS

FAR = 10                                                  # pictures away: more than a mistake
LONGEST = 60                                              # bits of a run's length


@dataclass(frozen=True)
class Entry:
    """One entry of a list in a COCO file, and the words that say where it stands."""

    data: dict
    where: str

    def fault(self, problem: str) -> ValueError:
        """The error that names the file, the entry and its problem."""
        return ValueError(f"{self.where}: {problem}.")

    def __getitem__(self, field: str):
        if field not in self.data:
            raise self.fault(f"{field} is missing")
        return self.data[field]

    def whole(self, field: str, low: int | None = None, high: int | None = None) -> int:
        """A field that is a whole number between two bounds, both included."""
        value = self[field]
        if not is_whole(value) or (low is not None and value < low) or (
                high is not None and value > high):
            bounds = ("" if low is None else f" from {low}") + (
                "" if high is None else f" to {high}")
            raise self.fault(f"{field} is {value!r}, needs a whole number{bounds}")
        return value

    def text(self, field: str) -> str:
        """A field that is a text with something in it."""
        value = self[field]
        if not isinstance(value, str) or not value.strip() or not _is_unicode(value):
            raise self.fault(f"{field} is {value!r}, needs a text")
        return value.strip()

    def numbers(self, field: str, count: int, needs: str) -> list[float]:
        """A field that is a list of `count` finite numbers."""
        value = self[field]
        if not isinstance(value, list):
            raise self.fault(f"{field} is {value!r}, needs {needs}")
        if len(value) != count:
            raise self.fault(f"{field} has {len(value)} numbers, needs {needs}")
        self.finite(field, value)
        return value

    def finite(self, what: str, values: list) -> None:
        """Refuse a list that holds anything but finite numbers."""
        for value in values:
            if type(value) not in (int, float) or not -1e300 < value < 1e300:    # NaN neither
                raise self.fault(f"{what} holds {value!r}, needs finite numbers")

    def listed(self, field: str, known, words: str) -> int:
        """A field that is one of the known ids."""
        value = self[field]
        if not is_whole(value) or value not in known:
            raise self.fault(f"{field} {value!r} is not among the {words}")
        return value


def _is_unicode(text: str) -> bool:
    """Whether a text can be written: JSON may hold halves of letters."""
    return text.encode(errors="replace").decode() == text


def read_json(path: Path) -> dict:
    """The object in a JSON file; raises ValueError for a file that does not hold one."""
    try:
        data = parsed_json(path)
    except ValueError as error:                           # also bytes that are no text
        raise ValueError(f"{path.name}: this is not JSON ({error}).") from error
    if not isinstance(data, dict):
        raise ValueError(f"{path.name}: holds a {type(data).__name__}, needs an object with "
                         "images, annotations and categories.")
    return data


def entries(data: dict, file: str, key: str, kind: str, id_field: str = "id") -> list[Entry]:
    """The entries of one of a file's lists, each an object."""
    if not isinstance(data.get(key), list):
        raise ValueError(f"{file}: {key} is missing or no list.")
    found = []
    for place, entry in enumerate(data[key]):
        where = f"{file}: {kind} at place {place} of {key}"
        if not isinstance(entry, dict):
            raise ValueError(f"{where}: is {entry!r}, needs an object.")
        known = is_whole(entry.get(id_field))
        found.append(Entry(entry, f"{file}: {kind} {entry[id_field]}" if known else where))
    return found


def by_id(items: Iterable[Entry], field: str = "id") -> dict[int, Entry]:
    """Entries by their id, which none shares with another."""
    table: dict[int, Entry] = {}
    for entry in items:
        if entry.whole(field) in table:
            raise entry.fault(f"{field} is used twice")
        table[entry.data[field]] = entry
    return table


def of_listed(items: Iterable[Entry], known: Container[int]) -> tuple[list[Entry], int]:
    """The entries whose image_id is known, and how many others there are."""
    items = list(items)
    kept = [entry for entry in items if entry.whole("image_id") in known]
    return kept, len(items) - len(kept)


def checked_images(data: dict, file: str) -> dict[int, Entry]:
    """The images of a file by id, each with a name, a width and a height."""
    table = by_id(entries(data, file, "images", "image"))
    for entry in table.values():
        entry.text("file_name")
        entry.whole("width", 1)
        entry.whole("height", 1)
    return table


def checked_categories(data: dict, file: str, panoptic: bool = False) -> dict[int, Entry]:
    """The categories of a file by id; ids need not be contiguous."""
    table = by_id(entries(data, file, "categories", "category"))
    for entry in table.values():
        entry.text("name")
        if panoptic:
            entry.whole("isthing", 0, 1)
        if entry.data.get("keypoints", list(KEYPOINTS)) != list(KEYPOINTS):
            raise entry.fault(f"keypoints are not COCO's seventeen, {', '.join(KEYPOINTS)}")
    return table


def check_instance(entry: Entry, image: Entry) -> None:
    """Refuse a malformed box, mask or crowd flag of an annotation."""
    x, y, width, height = entry.numbers("bbox", 4, "x, y, width, height")
    if width < 0 or height < 0:
        raise entry.fault(f"bbox has a negative {'width' if width < 0 else 'height'}, "
                          f"{width if width < 0 else height}")
    if "iscrowd" in entry.data:
        entry.whole("iscrowd", 0, 1)
    shape = entry.data.get("segmentation") or None        # a set of boxes alone has none
    if shape is None:
        return
    if isinstance(shape, dict):
        _check_rle(entry, shape, image.data["height"], image.data["width"])
    elif isinstance(shape, list):
        for number, polygon in enumerate(shape):
            _check_polygon(entry, f"segmentation polygon {number}", polygon,
                     FAR * max(image.data["height"], image.data["width"]))
    else:
        raise entry.fault(f"segmentation is {shape!r}, needs polygons or an RLE")


def _check_polygon(entry: Entry, what: str, polygon, far: float) -> None:
    """Refuse what pycocotools would take for a box, or crash on."""
    if not isinstance(polygon, list) or len(polygon) < 6 or len(polygon) % 2:
        has = f"has {len(polygon)} numbers" if isinstance(polygon, list) else f"is {polygon!r}"
        raise entry.fault(f"{what} {has}, needs x, y of three points or more")
    entry.finite(what, polygon)
    worst = max(polygon, key=abs)
    if abs(worst) > far:
        raise entry.fault(f"{what} reaches {worst:g}, far outside its picture")


def _check_rle(entry: Entry, shape: dict, height: int, width: int) -> None:
    """Refuse runs that do not fill the picture: pycocotools would leave the rest undefined."""
    if shape.get("size") != [height, width]:
        raise entry.fault(f"segmentation size is {shape.get('size')!r}, its picture has "
                          f"[height, width] = [{height}, {width}]")
    counts = shape.get("counts")
    if isinstance(counts, str):
        counts = run_lengths(entry, counts)
    if not isinstance(counts, list) or not all(is_whole(c, 0) for c in counts):
        raise entry.fault("segmentation counts are no run lengths, which are whole numbers from 0")
    if sum(counts) != height * width:
        raise entry.fault(f"segmentation counts cover {sum(counts)} pixels, its picture has "
                          f"{height * width}")


def run_lengths(entry: Entry, counts: str) -> list[int]:
    """The run lengths in a compressed RLE: five bits a letter, the lowest first.

    From the fourth on, a number is the difference from the run two before it.
    """
    lengths, value, shift = [], 0, 0
    for letter in counts:
        bits = ord(letter) - 48
        if not 0 <= bits < 64:
            raise entry.fault(f"segmentation counts hold {letter!r}, which is no letter of an RLE")
        value |= (bits & 31) << shift
        shift += 5
        if shift > LONGEST:
            raise entry.fault("segmentation counts hold a number without an end")
        if not bits & 32:                                 # the last letter of a number
            value -= (bits & 16) and 1 << shift           # whose highest bit is its sign
            lengths.append(value + (lengths[-2] if len(lengths) > 2 else 0))
            value = shift = 0
    if shift:
        raise entry.fault("segmentation counts end in the middle of a number")
    return lengths


def checked_points(entry: Entry) -> list[float]:
    """The 51 numbers of a keypoints field: x, y and visibility of seventeen points."""
    found = entry.numbers("keypoints", 3 * len(KEYPOINTS),
                          "51: x, y and visibility of seventeen points")
    for name, seen in zip(KEYPOINTS, found[2::3], strict=True):
        if seen not in (0, 1, 2):
            raise entry.fault(f"keypoints give {name} the visibility {seen}, needs 0, 1 or 2")
    return found


def checked_segments(entry: Entry, known: dict[int, Entry]) -> dict[int, Entry]:
    """The segments of a panoptic annotation by id, each of a known category."""
    inside = entries(entry.data, entry.where, "segments_info", "segment")
    table = by_id(inside)
    for segment in table.values():
        segment.whole("id", 1, 2 ** 24 - 1)               # 0 is what nobody labelled
        segment.listed("category_id", known, "categories")
    return table

"""Figures of matplotlib as SVG that belongs to a page: in its font and colours, light or dark, without styles."""

import io
import re
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

from markupsafe import Markup

from engine.report.figures import write_figure
from engine.report.page.parts import Chart

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# What matplotlib draws in → a colour of page.css, which has another value in the dark.
COLORS = {
    "#000000": "currentColor",
    "#ffffff": "var(--back)",
    "#808080": "var(--faint)",
    "#666666": "var(--faint)",
    "#999999": "var(--faint)",
    "#b0b0b0": "var(--faint)",
    "#cccccc": "var(--faint)",
    "#1f77b4": "var(--one)",
    "#ff7f0e": "var(--two)",
    "#b22222": "var(--bad)",
    "#2ca02c": "var(--three)",
    "#d62728": "var(--four)",
    "#9467bd": "var(--five)",
    "#8c564b": "var(--six)",
}
SVG, LINK = "{http://www.w3.org/2000/svg}", "{http://www.w3.org/1999/xlink}href"
FONT_SIZE = re.compile(r"([\d.]+)px")
SETTINGS: Any = {"svg.fonttype": "none", "svg.hashsalt": "page", "text.parse_math": False}
PIXELS_PER_POINT = 4 / 3


def make_chart(figure: "Figure", label: str, name: str, is_wide: bool = False) -> Chart:
    """A figure as a part of a page. label: what it shows, in words. name: one of its own on the page."""
    import matplotlib

    file = io.StringIO()
    with matplotlib.rc_context(SETTINGS):
        write_figure(figure, file, format="svg", transparent=True, metadata={"Date": None})
    return Chart(label, _restyled(file.getvalue(), name), is_wide=is_wide)


def _restyled(text: str, name: str) -> Markup:
    """The drawing without styles, which a page's policy forbids: presentation attributes say the same."""
    ElementTree.register_namespace("", SVG[1:-1])
    ElementTree.register_namespace("xlink", LINK[1:].split("}")[0])
    root = ElementTree.fromstring(text)
    for parent in list(root.iter()):
        for child in [each for each in parent if each.tag in (f"{SVG}style", f"{SVG}metadata")]:
            parent.remove(child)
    for element in root.iter():
        for prop, value in _read_style(element.attrib.pop("style", "")):
            _set_property(element, prop, value)
    _rename_marks(root, name)
    width, height = (f"{float(size) * PIXELS_PER_POINT:.0f}" for size in root.attrib["viewBox"].split()[2:])
    root.attrib.update(width=width, height=height, fill="currentColor")
    root.attrib["stroke-linejoin"], root.attrib["aria-hidden"] = "round", "true"
    return Markup(ElementTree.tostring(root, encoding="unicode"))


def _read_style(style: str) -> list[tuple[str, str]]:
    pairs = (part.split(":", 1) for part in style.split(";") if ":" in part)
    return [(prop.strip(), value.strip()) for prop, value in pairs]


def _set_property(element: ElementTree.Element, prop: str, value: str) -> None:
    if prop == "font":
        found = FONT_SIZE.search(value)
        element.set("font-size", found[1] if found else "10")
        return
    if prop in ("fill", "stroke"):
        value = COLORS.get(value, value)
    element.set(prop, value)


def _rename_marks(root: ElementTree.Element, name: str) -> None:
    """Removes ids that nothing refers to; others get one that no other drawing of the page has."""
    text = " ".join(value for element in root.iter() for value in element.attrib.values())
    used = set(re.findall(r"url\(#([^)]+)\)", text))
    used |= {element.attrib[LINK][1:] for element in root.iter() if element.attrib.get(LINK, "").startswith("#")}
    for element in root.iter():
        own = element.attrib.pop("id", None)
        if own in used:
            element.set("id", f"{name}-{own}")
        for key, value in element.attrib.items():
            if key == LINK and value.startswith("#"):
                element.set(key, f"#{name}-{value[1:]}")
            elif "url(#" in value:
                element.set(key, value.replace("url(#", f"url(#{name}-"))

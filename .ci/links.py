"""Check a built site: links lead somewhere, the network is not needed, no page shows the machine it was made on."""

from __future__ import annotations

import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

_MACHINE = re.compile(rf"\S*site-packages\S*|TqdmWarning|{re.escape(str(Path(__file__).parents[1]))}\S*")
_NAVIGATION = {"next", "prev", "index", "search", "author", "canonical"}


class Page(HTMLParser):
    """The anchors of a page, where it leads, and what it loads."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.links: list[str] = []
        self.unnamed: list[str] = []
        self.loads: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {key: value for key, value in attrs if value}
        self.anchors |= {given[key] for key in ("id", "name") if key in given}
        # Sphinx writes the file's name where a picture has no text.
        if tag == "img" and given.get("alt", "").rsplit("/")[-1] in ("", given.get("src", "").rsplit("/")[-1]):
            self.unnamed.append(given.get("src", ""))
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        if tag == "link" and not {"next", "prev", "index", "search", "author", "canonical"} & set(
            given.get("rel", "").split()
        ):
            self.loads.append(given.get("href", ""))
        self.loads += [given[key] for key in ("src", "data", "poster") if key in given]
        self.loads += [part.split()[0] for part in given.get("srcset", "").split(",") if part.strip()]
        self.loads += remote_in_css(given.get("style", ""))

    def handle_data(self, data: str) -> None:
        if self.lasttag == "style":
            self.loads += remote_in_css(data)


def remote_in_css(text: str) -> list[str]:
    return re.findall(r"""(?:url\(|@import)\s*["']?((?:https?:)?//[^"')\s]+)""", text)


def main(folder: Path) -> int:
    pages = {path.resolve(): Page(path.read_text(encoding="utf-8")) for path in folder.rglob("*.html")}
    wrong = []
    checked = 0
    for path, page in pages.items():
        wrong += [f"{path.name}: {picture} has no alternative text" for picture in page.unnamed]
        for target in [*page.links, *page.loads]:
            parts = urlsplit(target)
            if parts.scheme in ("http", "https") or target.startswith("//"):
                if target in page.loads:
                    wrong.append(f"{path.name}: loads {target} from the network")
                continue
            if parts.scheme in ("data", "mailto"):
                continue
            checked += 1
            there = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if not there.exists() or not there.is_relative_to(folder.resolve()):
                wrong.append(f"{path.name}: {target} leads nowhere")
            elif parts.fragment and there in pages and unquote(parts.fragment) not in pages[there].anchors:
                wrong.append(f"{path.name}: {target} has no such anchor")
    for path in pages:
        text = re.sub(r"<[^>]+>", "", path.read_text(encoding="utf-8"))
        # What a cell printed of its own environment: warnings of libraries come with a path.
        wrong += [f"{path.name}: shows {found[0]}" for found in _MACHINE.finditer(text)]
    for path in folder.rglob("*.css"):
        wrong += [f"{path.name}: loads {target} from the network" for target in remote_in_css(path.read_text("utf-8"))]
    for line in sorted(set(wrong)):
        print(line)
    print(f"{checked:,} links and files in {len(pages)} pages, {len(set(wrong))} wrong")
    return 1 if wrong or not pages else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))

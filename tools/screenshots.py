"""Photographs every page of the book into _build/screenshots: light, dark and phone."""

import sys

from browser import DESKTOP, LOAD_ALL, PHONE, chromium, find_chromium, open_page, page_names, serve
from build_book import BUILD

FOLDER = BUILD / "screenshots"
VIEWS = {"light": (DESKTOP, "light"), "dark": (DESKTOP, "dark"), "phone": (PHONE, "light")}
TALLEST = 4_000  # pixels; a longer page is photographed in pieces


def photograph(page, stem: str) -> None:
    """Saves a whole page as one picture, or as several from top to bottom."""
    height = page.evaluate("document.documentElement.scrollHeight")
    width = page.viewport_size["width"]
    for piece, top in enumerate(range(0, height, TALLEST), start=1):
        clip = {"x": 0, "y": top, "width": width, "height": min(TALLEST, height - top)}
        suffix = f"-{piece}" if height > TALLEST else ""
        page.screenshot(path=FOLDER / f"{stem}{suffix}.png", full_page=True, clip=clip)


def main() -> None:
    """Photographs all pages in all views."""
    if find_chromium() is None:
        sys.exit("make: Chromium was not found. Debian: sudo apt-get install chromium")
    FOLDER.mkdir(parents=True, exist_ok=True)
    with serve() as address, chromium() as browser:
        for view, (size, theme) in VIEWS.items():
            context = browser.new_context(viewport=size)
            for name in page_names():
                page = open_page(context, f"{address}/{name}.html", theme)
                page.evaluate(LOAD_ALL)
                photograph(page, f"{name.rpartition('/')[2]}-{view}")
                page.close()
            context.close()
    print(f"The screenshots are in {FOLDER}")


if __name__ == "__main__":
    main()

"""Opens the built pages in Chromium, from a local server and with every other address blocked."""

import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import yaml
from playwright.sync_api import BrowserContext, sync_playwright

from build_book import PAGES
from house import ROOT

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
MAC = Path("/Applications/Google Chrome.app/Contents/MacOS/Google Chrome")
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
]
DESKTOP = {"width": 1280, "height": 900}
PHONE = {"width": 390, "height": 844}
# Milliseconds. Everything takes its time on a busy machine: only what hangs is ended.
PATIENCE = 600_000
# Ends when formulas are typeset, fonts and pictures are there, and the browser has nothing to do.
AT_REST = """
async () => {
    await window.MathJax?.startup?.promise;
    await document.fonts.ready;
    const late = [...document.images].filter(i => !i.complete && i.loading !== 'lazy');
    await Promise.all(late.map(i => new Promise(done => i.onload = i.onerror = done)));
    await new Promise(requestIdleCallback);
}
"""
# Loads the pictures that would wait until a reader comes near them.
LOAD_ALL = """
async () => {
    for (const image of document.images) image.loading = 'eager';
    await Promise.all([...document.images].map(image => image.decode().catch(() => null)));
}
"""


def find_chromium() -> str | None:
    """The path of an installed Chromium or Chrome, or `None`."""
    found = next(filter(None, map(shutil.which, NAMES)), None)
    return found or (str(MAC) if MAC.exists() else None)


def page_names() -> list[str]:
    """The pages of the book as the table of contents names them: "book/intro" first."""
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text())
    return [toc["root"], *(c["file"] for part in toc["parts"] for c in part["chapters"])]


class _Quiet(SimpleHTTPRequestHandler):
    """A file server that does not report each request."""

    def log_message(self, *arguments):
        pass


@contextmanager
def serve(folder: Path = PAGES) -> Iterator[str]:
    """Serves a folder on this machine; gives the address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=folder))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def chromium() -> Iterator:
    """A running browser with a fresh profile."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=find_chromium(), args=FLAGS, timeout=PATIENCE
        )
        try:
            yield browser
        finally:
            browser.close()


def block_network(context: BrowserContext, address: str) -> list[str]:
    """Lets a context load from `address` alone; gives the list of what it refuses from then on."""
    refused: list[str] = []

    def decide(route):
        if route.request.url.startswith((address, "data:", "blob:")):
            route.continue_()
        else:
            refused.append(route.request.url)
            route.abort()

    context.route("**/*", decide)
    return refused


def open_page(context: BrowserContext, address: str, theme: str = "light"):
    """Opens an address in one of the themes, and waits until the page is at rest."""
    stored = f"localStorage.mode = localStorage.theme = '{theme}'"
    context.add_init_script(f"if (location.protocol === 'http:') {stored}")
    context.set_default_timeout(PATIENCE)
    page = context.new_page()
    pending = set()
    # Playwright marks its handlers, which it cannot do with a method of a built-in type.
    page.on("request", lambda request: pending.add(request))
    page.on("requestfinished", lambda request: pending.discard(request))
    page.on("requestfailed", lambda request: pending.discard(request))
    page.goto(address, wait_until="load")
    page.evaluate(AT_REST)
    while pending:  # a script asked for more
        page.evaluate(AT_REST)
    return page

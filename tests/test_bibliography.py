"""tools/bibliography.py: how works are named, and the page that lists them."""

import re

import bibliography
import links
import targets
from house import BOOK

WORKS = bibliography.works()


def test_works_are_called_as_in_papers():
    assert WORKS["jiang2023mistral"].label == "Jiang et al., 2023"
    assert WORKS["zhang2019rmsnorm"].label == "Zhang and Sennrich, 2019"
    assert WORKS["bennett1948spectra"].label == "Bennett, 1948"
    assert WORKS["mlxlm390"].label == "mlx-lm #390"
    assert {WORKS["chen2023interpolation"].label, WORKS["chen2023speculative"].label} == {
        "Chen et al., 2023a",
        "Chen et al., 2023b",
    }


def test_no_two_works_have_one_name():
    labels = [work.label for work in WORKS.values()]
    assert len(labels) == len(set(labels)) > 150
    assert len(labels) == len(re.findall(r"^@", (BOOK / "references.bib").read_text(), re.M))


def test_latex_is_read():
    mistral = WORKS["jiang2023mistral"]
    assert "Lélio Renard Lavaud, Marie-Anne Lachaux" in mistral.authors
    assert mistral.plain.endswith("El Sayed. Mistral 7B. arXiv:2310.06825, 2023.")
    assert mistral.url == "https://arxiv.org/abs/2310.06825"
    assert not any(re.search(r"[{}\\]", work.plain) for work in WORKS.values())


def test_page_is_current():
    page = links.fill(bibliography.page(), targets.load())
    assert bibliography.PAGE.read_text() == page, "run tools/notebooks.py sync"


def test_page_lists_each_work_once_in_order_and_says_who_cites_it():
    page = bibliography.page()
    anchors = re.findall(r'<a id="([^"]+)"></a>\*\*([^*]+)\.\*\*', page)
    assert dict(anchors) == {key: work.label for key, work in WORKS.items()}
    names = [label.casefold() for _, label in anchors]
    assert names == sorted(names)
    (entry,) = re.findall(r".*Jiang et al., 2023\..*", page)
    assert "[](cited:jiang2023mistral@07_sliding_windows)" in entry


def test_every_work_is_cited():
    assert WORKS.keys() - bibliography.chapters_citing().keys() == set()

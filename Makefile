# Every target makes what it needs first: `make test` on a fresh clone makes .venv and installs into it.
# Works with GNU make 3.81 (macOS) and with nothing beyond a POSIX shell, awk and Python 3.11 to 3.13.

RUN = .venv/bin/python
RUFF = $(RUN) -m ruff
# A process a core, but no more than memory bears; the tests of a file stay in one process.
PYTEST = $(RUN) -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile
# Only read while .venv does not exist yet: `make book PYTHON=/path/to/python3.12`.
PYTHON =
# `make setup LOCKED=1` installs the versions of versions/locked.txt, and .venv stays with them.
LOCKED =
# Of `make versions`: some of oldest, colab and newest; all by default.
COLUMNS =
URL =

.DEFAULT_GOAL := help
.PHONY: help setup book serve test quick lint format notebooks versions bench screenshots repository clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' Makefile

setup: ## make .venv and install requirements.txt into it, if that has not been done yet
	@python=$$(sh tools/find_python.sh "$(PYTHON)") && \
		"$$python" tools/make_venv.py $(if $(LOCKED),--constraints versions/locked.txt)

book: setup ## build the pages from the executed notebooks; a warning is an error
	@$(RUN) tools/build_book.py

serve: book ## build the pages and serve them at http://localhost:8000
	@$(RUN) -m http.server 8000 --bind 127.0.0.1 --directory _build/html

test: setup lint ## check the style, run the tests and docstring examples, compare every notebook's outputs
	@echo "Tests and docstring examples"
	@$(PYTEST)
	@echo "Notebooks: run again, outputs compared"
	@$(PYTEST) -p no:python --nbval --nbval-current-env --nbval-cell-timeout 300 \
		--nbval-sanitize-with tests/nbval_sanitize.cfg book

quick: setup ## run what takes no more than two minutes of the tests, while you work
	@$(PYTEST) -m "not slow"

lint: setup ## check the format and the style of code and notebooks, and the library's types
	@echo "Format and style"
	@$(RUFF) format --quiet --check .
	@$(RUFF) format --quiet --check --line-length 88 book/*.ipynb
	@$(RUFF) check --quiet .
	@$(RUFF) check --quiet --line-length 88 book/*.ipynb
	@echo "Types"
	@found=$$($(RUN) -m pyright --level error 2>&1) || { echo "$$found"; exit 1; }

format: setup ## rewrite code and notebooks in that format
	@$(RUFF) check --quiet --fix .
	@$(RUFF) check --quiet --fix --line-length 88 book/*.ipynb
	@$(RUFF) format .
	@$(RUFF) format --line-length 88 book/*.ipynb

notebooks: setup ## run every notebook in place and refresh the numbers in its prose
	@$(RUN) tools/chapter_map.py
	@$(RUN) tools/notebooks.py run

versions: ## run tests and notebooks with the oldest, Colab's and the newest libraries, some hours
	@python=$$(sh tools/find_python.sh "$(PYTHON)") && "$$python" tools/versions.py $(COLUMNS)

bench: setup ## time the library beside KerasHub and transformers, about an hour (results are committed)
	@test -x .venv-peers/bin/python || { $(RUN) -m venv .venv-peers && \
		.venv-peers/bin/pip install --quiet -r tests/reference/requirements.txt; }
	@$(RUN) benchmarks/run.py
	@$(RUN) benchmarks/loading.py
	@$(RUN) benchmarks/startup.py
	@$(RUN) benchmarks/steps.py
	@$(RUN) benchmarks/table.py

screenshots: book ## photograph every page: light, dark, and as wide as a phone (needs Chromium)
	@$(RUN) tools/screenshots.py

repository: setup ## write the repository's address everywhere: make repository URL=https://github.com/me/fork
	@$(RUN) tools/repository.py $(URL)

clean: ## remove .venv, .venv-versions, the built pages and every cache
	rm -rf .venv .venv-versions _build .pytest_cache .ruff_cache .hypothesis *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

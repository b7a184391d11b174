# One line a job. `make lab` opens the course, `make test` proves it. Without make: see README.md.
PYTHON ?= python3
PORT ?= 8888
BROWSER ?= yes
RUN := .venv/bin
READY := .venv/.ready
LAB_FLAGS := --port=$(PORT) $(if $(filter no,$(BROWSER)),--no-browser) $(if $(filter 0,$(shell id -u)),--allow-root)
NBVAL := --nbval-lax --nbval-current-env --nbval-cell-timeout=300 --force-enable-socket -n 2 --dist loadfile

.PHONY: lab test proof unit notebooks bench colab browser site

lab: $(READY)
	$(RUN)/jupyter lab $(LAB_FLAGS) notebooks

# Linter, types, unit tests; then every notebook is executed once: lessons as the student has them and on with their
# solutions, homework solved.
test: $(READY) unit
	$(RUN)/course build --proof build/proof
	$(RUN)/pytest $(NBVAL) build/proof notebooks/homework/solutions

unit: $(READY)
	$(RUN)/ruff check . && $(RUN)/ruff format --check . && $(RUN)/mypy
	$(RUN)/pytest -n 2 -m "not slow"

# The exhaustive rest: contracts of all architectures, a class of fifty, compiled code, killed processes.
proof: $(READY)
	$(RUN)/pytest -m slow

notebooks: $(READY)
	$(RUN)/course build

bench: $(READY)
	$(RUN)/pip install --quiet -c constraints.txt -e ".[bench]" && $(RUN)/python .ci/bench.py

# The course in a venv with Colab's own versions (gigabytes: a torch with CUDA), installed as the notebooks do it.
colab: $(READY)
	$(RUN)/python .ci/colab.py $(LESSONS)

# The lessons in JupyterLab and the site, opened by a headless Chromium; screenshots in build/browser.
browser: site
	$(RUN)/pytest -p no:xdist --force-enable-socket tests/browser

# The reading site, in build/site/html.
site: $(READY)
	$(RUN)/python docs/build.py

# The mark is made last: an interrupted set-up has none, and is done again from an empty folder.
$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv --clear .venv && $(RUN)/pip install --quiet -c constraints.txt -e ".[lab,test]"
	touch $(READY)

# One command for each thing.  Everything else is in ./bootstrap.
PREFIX ?= /opt/weir
PYTHON  = $(PREFIX)/dev/bin/python

.PHONY: lint test dev deb bench docs lock

lint:
	$(PYTHON) -m ruff check .
	$(PYTHON) -m mypy

test:
	./bootstrap test

dev:
	./bootstrap dev

deb:
	./bootstrap package

bench:
	PYTHONPATH=tests:. $(PYTHON) -m bench
	PYTHONPATH=tests:. $(PYTHON) -m bench.connects
	PYTHONPATH=tests:. $(PYTHON) -m bench.held
	PYTHONPATH=tests:. $(PYTHON) -P -m bench.ssh
	PYTHONPATH=tests:. $(PYTHON) -P -m bench.kubernetes

# docs/reference-*.md and the example of weir.toml anew, from the code.
docs:
	PYTHONPATH=tests:. $(PYTHON) -m reference

# Lock files anew: needs uv (pip install uv) on PATH.
lock:
	for name in "" -dev -build -clients -crew -go; do \
	  uv pip compile -q --python /usr/bin/python3 --generate-hashes --no-emit-index-url --no-header --no-annotate \
	    requirements$$name.in -o requirements$$name.lock || exit 1; \
	done

# The two commands of the README, each with all its set-up: `make quickstart` and `make test`.
VENV ?= .venv
PYTHON ?= python3
RUN := $(VENV)/bin/python

.PHONY: quickstart laptop test notebooks docs lint gl clean

quickstart: $(VENV)/.installed gl  ## the whole of SynthER from pixels, in minutes
	$(RUN) -m lightning_synther fit --config configs/vd4rl_cheetah.yaml --config configs/scale/quick.yaml

laptop: $(VENV)/.installed gl  ## the same at a size worth comparing
	$(RUN) -m lightning_synther fit --config configs/vd4rl_cheetah.yaml --config configs/scale/laptop.yaml

test: $(VENV)/.installed gl  ## the test suite
	$(RUN) -m pytest

notebooks: $(VENV)/.installed gl  ## executes notebooks/ at a small size
	$(RUN) -m pytest -m notebooks

docs: $(VENV)/.installed-docs  ## the documentation site, in site/; a warning is an error
	NO_MKDOCS_2_WARNING=1 $(VENV)/bin/mkdocs build --strict --quiet

lint: $(VENV)/.installed  ## style, types, import contracts
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --upgrade pip
	$(RUN) -m pip install --quiet --editable '.[test]'
	touch $@

$(VENV)/.installed-docs: $(VENV)/.installed
	$(RUN) -m pip install --quiet --editable '.[docs]'
	touch $@

# dm_control renders off screen through EGL, a system library that no Python package brings.
gl:
	@$(PYTHON) -c 'import ctypes, sys; sys.platform != "linux" or ctypes.CDLL("libEGL.so.1")' 2>/dev/null || { \
	  echo "installing the OpenGL libraries that dm_control renders with"; \
	  SUDO=$$(test "$$(id -u)" = 0 || echo sudo); \
	  $$SUDO apt-get update -qq && $$SUDO apt-get install -qq -y --no-install-recommends libegl1 libgl1 libgles2; }

clean:
	rm -rf $(VENV) runs site

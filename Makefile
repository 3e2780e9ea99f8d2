# Encore's commands. Each one sets .venv up first; that costs nothing when it stands already.

SHELL := bash
BIN := .venv/bin
# Checks cover whatever is there of these.
CHECKED := $(wildcard src tests benchmarks launch setup.py)
WORKERS ?= 2
PYTEST ?=
DEMO ?=
KILLS ?= 200
MINUTES ?= 60

# Off-screen rendering without a display, unless the user chose otherwise (egl on a GPU).
export MUJOCO_GL ?= osmesa
# Two BLAS threads in each of several processes fight for the same cores.
export OMP_NUM_THREADS ?= 1
export PYTHONUNBUFFERED := 1
# A marker of the ROS wheels' start-up hook, set in the process tree of another environment, would disable ours.
unexport _ROS_WHEELS_BOOTSTRAP_COMPLETE

.DEFAULT_GOAL := help
.PHONY: help setup libero libero-assets demo demo-quick test format format-check lint types pytest bench kills soak clean

help:  ## list these commands
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):[^#]*## /  make \1\t/' | expand -t 20

setup:  ## make .venv, with what the system needs for off-screen rendering
	@scripts/setup.sh

libero: setup  ## add the simulator LIBERO, without the gigabytes that it does not need
	@scripts/libero.sh

libero-assets: libero  ## download LIBERO's models and textures, 422 MB, to ~/.cache/libero/assets
	$(BIN)/hf download lerobot/libero-assets --repo-type dataset --local-dir ~/.cache/libero/assets

demo: setup  ## the whole loop on simulated tasks, about 20 minutes on 2 cores; goes on where it was
	$(BIN)/encore demo $(DEMO)

demo-quick: setup  ## the same path in under 4 minutes
	$(BIN)/encore demo --config demo_quick --output demo-quick $(DEMO)

test: format-check lint types pytest  ## everything that must hold before a commit; PYTEST="..." adds options

format: setup  ## format the code
	$(BIN)/ruff format $(CHECKED)
	$(BIN)/ruff check --fix $(CHECKED)

format-check: setup
	$(BIN)/ruff format --check $(CHECKED)

lint: setup
	$(BIN)/ruff check $(CHECKED)

types: setup
	$(BIN)/mypy $(CHECKED)

pytest: libero
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile $(PYTEST)

bench: setup  ## measure what docs/results.md states
	@for script in benchmarks/*.py; do case $$script in */_*|*/conftest.py|*/libero_expert.py|*/soak_node.py) continue;; esac; \
	    echo "== $$script"; $(BIN)/python $$script || exit 1; done

kills: setup  ## kill recorders 200 times (KILLS=...), about 15 minutes; prints what was lost
	ENCORE_KILLS=$(KILLS) $(BIN)/python -m pytest tests/test_recorder_kills.py -s

soak: setup  ## a policy drives for an hour (MINUTES=...): does anything leak, drift or get lost? See runs/soak
	$(BIN)/python benchmarks/soak_node.py --minutes $(MINUTES)

clean:  ## remove .venv and everything that is built; runs, demo and demo-quick stay
	rm -rf .venv build install log .mypy_cache .ruff_cache .pytest_cache .hypothesis src/*.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

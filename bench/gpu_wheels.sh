#!/bin/sh
# Fetches what gpu_check needs beside torch and pytest, as wheels for a GPU machine without a network:
#   bench/gpu_wheels.sh wheels 3.12                                    here, for the Python of that machine
#   python -m pip install --no-index --no-deps wheels/*.whl            there
set -e
exec python3 -m pip download -q -d "${1:?folder}" --python-version "${2:-3.12}" --only-binary=:all: --no-deps jsonargparse

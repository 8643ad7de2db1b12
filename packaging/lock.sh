#!/bin/sh
# Writes the hashes of all that goes into a package, in the versions of constraints.txt: `make lock`.
set -eu
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
[ -x build/uv/bin/uv ] || "$python" -m pip install --quiet --target build/uv uv
lock() {
    build/uv/bin/uv pip compile --quiet --generate-hashes --universal --python-version 3.11 \
        --no-header --no-annotate --constraint constraints.txt "$@"
}
# every line would say so
always=" and platform_python_implementation == 'CPython' and sys_platform == 'linux'"
lock pyproject.toml --extra postgres --output-file packaging/requirements.txt
lock packaging/tools.in --output-file packaging/tools.txt
sed -i -e "s/$always//" -e "s/ ; ${always# and }//" -e "s/ ; implementation_name != '[pP]y[pP]y'//" \
    packaging/requirements.txt packaging/tools.txt

# Sourced by the scripts: makes .venv once and keeps it in step with pyproject.toml.
# Sets VENV_PYTHON. Usage: . scripts/lib/venv.sh; prepare_venv EXTRA

fail() {
    echo "error: $*" >&2
    exit 1
}

find_python() {
    for candidate in ${PYTHON:-python3 python3.13 python3.12 python3.11}; do
        if "$candidate" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' 2>/dev/null; then
            command -v "$candidate"
            return
        fi
    done
    fail "Python 3.11, 3.12 or 3.13 is needed and none was found: install one, or name it with PYTHON=/path/to/python."
}

# Debian keeps ensurepip in a package of its own; without root, pip can still come from its wheel package.
install_pip() {
    "$VENV_PYTHON" -m pip --version >/dev/null 2>&1 && return
    local wheels
    wheels=$(mktemp -d)
    (cd "$wheels" && apt-get -qq download python3-pip-whl && dpkg -x ./*.deb .) >/dev/null 2>&1 || {
        rm -rf "$wheels"
        fail "$PYTHON_FOUND can't make a virtual environment with pip: install your system's python3-venv package."
    }
    local wheel
    wheel=$(echo "$wheels"/usr/share/python-wheels/pip-*.whl)
    "$VENV_PYTHON" "$wheel/pip" install -q --no-index "$wheel" || fail "pip could not be put into .venv."
    rm -rf "$wheels"
}

prepare_venv() {
    local extra=$1 root stamp
    root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
    VENV_PYTHON=$root/.venv/bin/python
    stamp=$root/.venv/installed
    exec 9>"$root/.venv.lock"
    flock 9
    PYTHON_FOUND=$(find_python) || exit 1
    if ! [ -x "$VENV_PYTHON" ] || ! "$VENV_PYTHON" -c '' 2>/dev/null; then
        echo "Making the virtual environment .venv" >&2
        rm -rf "$root/.venv"
        "$PYTHON_FOUND" -m venv "$root/.venv" >/dev/null 2>&1 || "$PYTHON_FOUND" -m venv --without-pip "$root/.venv" ||
            fail "$PYTHON_FOUND can't make a virtual environment: install your system's python3-venv package."
        install_pip
    fi
    local want
    want="$(sha256sum <"$root/pyproject.toml") $root"
    if ! grep -qxF "$want $extra" "$stamp" 2>/dev/null; then
        echo "Installing ari_app[$extra] and what it needs (a few hundred MB the first time)" >&2
        "$VENV_PYTHON" -m pip --disable-pip-version-check install -q -q -e "$root[$extra]" ||
            fail "the packages could not be installed: see pip's message above."
        "$VENV_PYTHON" "$root/scripts/lib/fetch_phone.py" || true
        # A development environment holds all that the benchmark needs, and that all that the demo needs.
        case $extra in
            dev) printf '%s\n' "$want dev" "$want bench" "$want demo" ;;
            bench) printf '%s\n' "$want bench" "$want demo" ;;
            *) echo "$want $extra" ;;
        esac >"$stamp"
    fi
    exec 9>&-
}

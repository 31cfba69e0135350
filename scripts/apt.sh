# Sourced by the install scripts: apt_install PACKAGE… installs Debian packages, as root or through sudo.
apt_install() {
    command -v apt-get >/dev/null || {
        echo "Please install by hand, there is no apt-get here: $*" >&2
        return 1
    }
    local root=()
    [ "$(id -u)" = 0 ] || root=(sudo)
    [ "${#root[@]}" = 0 ] || command -v sudo >/dev/null || {
        echo "Please install as root, there is no sudo here: apt-get install $*" >&2
        return 1
    }
    "${root[@]}" apt-get update -qq
    DEBIAN_FRONTEND=noninteractive "${root[@]}" apt-get install -y -qq --no-install-recommends "$@" >/dev/null
}

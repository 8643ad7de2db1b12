#!/bin/sh
# Brings the real servers and clients that the tests use, from Debian's packages.
# Without root it prints the one line to run and fails: a missing part is an error, no skip.
set -eu
packages="postfix postfix-lmdb postfix-cdb postfix-pcre haproxy nginx swaks libnet-ssleay-perl s-nail mutt msmtp php-cli php-mbstring libphp-phpmailer php-symfony-mailer sasl2-bin libsasl2-modules pflogsumm strace postgresql pgbouncer faketime iproute2 promtool chromium fonts-noto-core nodejs npm systemd spamd rpm groff-base debootstrap curl e2fsprogs git"
# chromium without windows: pages take it a third of the work; without it chromium shows them
wanted="chromium-headless-shell"
is_there() {
    dpkg-query -W -f '${Status}' "$1" 2>/dev/null | grep -q 'ok installed'
}
install() {
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null
}
missing=""
for package in $packages; do
    is_there "$package" || missing="$missing $package"
done
if [ -n "$missing" ] && [ "$(id -u)" -ne 0 ]; then
    echo "The tests need Debian packages that are not installed. Run, then try again:" >&2
    echo "  sudo apt-get update && sudo apt-get install -y --no-install-recommends$missing" >&2
    exit 1
fi
if [ -n "$missing" ]; then
    echo "installing$missing"
    apt-get update -qq
    # shellcheck disable=SC2086
    install $missing
fi
if [ "$(id -u)" -eq 0 ] && ! is_there "$wanted"; then
    echo "installing $wanted"
    install "$wanted" || echo "without $wanted: the tests take longer"
fi

#!/bin/sh
# Brings the real servers and clients that the tests use, from Debian's packages.
# Without root it prints the one line to run and fails: a missing part is an error, no skip.
set -eu
packages="postfix haproxy nginx swaks libnet-ssleay-perl s-nail mutt msmtp php-cli php-mbstring libphp-phpmailer php-symfony-mailer sasl2-bin libsasl2-modules pflogsumm strace postgresql pgbouncer faketime iproute2 promtool chromium fonts-noto-core nodejs npm"
missing=""
for package in $packages; do
    dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing="$missing $package"
done
[ -n "$missing" ] || exit 0
install="apt-get install -y --no-install-recommends$missing"
if [ "$(id -u)" -ne 0 ]; then
    echo "The tests need Debian packages that are not installed. Run, then try again:" >&2
    echo "  sudo apt-get update && sudo $install" >&2
    exit 1
fi
echo "installing$missing"
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
# shellcheck disable=SC2086
apt-get install -y -qq --no-install-recommends $missing >/dev/null

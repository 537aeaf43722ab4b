#!/bin/sh
# Makes the databases that tests/unit/net/test_geo.c reads. They are checked in, so that unit tests need no Perl.
set -eu
cd "$(dirname "$0")"
some='192.0.2.0/25=SE 192.0.2.128/25=NO 198.51.100.0/24=US 203.0.113.7/32=DE 203.0.113.8/32=xx 203.0.113.9/32=EUR
      203.0.113.10/32=A1 203.0.113.11/32='
./mmdb.pl flat.mmdb flat 6 24 $some 2001:db8:1::/48=FR 2001:db8:2::/48=ES
./mmdb.pl nested.mmdb nested 6 28 $some 2001:db8:1::/48=FR 2001:db8:2::/48=ES
./mmdb.pl nested32.mmdb nested 6 32 $some 2001:db8:1::/48=FR 2001:db8:2::/48=ES
./mmdb.pl flat4.mmdb flat 4 24 $some
./mmdb.pl asn.mmdb asn 4 24 192.0.2.0/24=SE

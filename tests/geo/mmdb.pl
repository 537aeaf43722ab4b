#!/usr/bin/perl
# Writes a small country database, by Debian's libmaxmind-db-writer-perl.
#
#   tests/geo/mmdb.pl FILE SHAPE IP_VERSION RECORD_SIZE NETWORK=COUNTRY...
#
# SHAPE is `flat` (country_code), `nested` (country.iso_code, with what MaxMind puts beside it) or `asn` (no country at
# all). The checked-in ones, which the unit tests read, were made by tests/geo/make.sh.
use strict;
use warnings;
use MaxMind::DB::Writer::Tree;

my ($file, $shape, $ip_version, $record_size, @networks) = @ARGV;
die "usage: mmdb.pl FILE flat|nested|asn 4|6 24|28|32 NETWORK=COUNTRY...\n" unless @networks;

my %types = (
    autonomous_system_number => 'uint32',
    continent => 'map', code => 'utf8_string', country => 'map', country_code => 'utf8_string',
    en => 'utf8_string', geoname_id => 'uint32', is_in_european_union => 'boolean', iso_code => 'utf8_string',
    names => 'map', location => 'map', latitude => 'double', subdivisions => [ 'array', 'map' ],
);
my $tree = MaxMind::DB::Writer::Tree->new(
    ip_version => $ip_version, record_size => $record_size,
    database_type => "Test-$shape", languages => ['en'], description => { en => "a test's" },
    remove_reserved_networks => 0, map_key_type_callback => sub { $types{ $_[0] } },
);
for my $given (@networks) {
    my ($network, $country) = split /=/, $given, 2;
    my %record = $shape eq 'flat' ? (country_code => $country)
        : $shape eq 'asn' ? (autonomous_system_number => 64496)
        : (
            continent => { code => 'XX', geoname_id => 6255148, names => { en => 'Somewhere' } },
            country => { geoname_id => 2661886, is_in_european_union => 1, iso_code => $country,
                         names => { en => "The land of $country" } },
            location => { latitude => 59.25 },
            subdivisions => [ { iso_code => 'ZZ' }, { iso_code => 'YY' } ],
        );
    $tree->insert_network($network, \%record);
}
open my $out, '>:raw', $file or die "$file: $!\n";
$tree->write_tree($out);
close $out or die "$file: $!\n";

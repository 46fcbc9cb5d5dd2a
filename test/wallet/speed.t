#!/usr/bin/perl
# At least 10,000 settlements per second on one core, without fsync.  Only when
# asked for, because it needs two quiet cores: WALLETD_SPEED=1 prove test/wallet/speed.t
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/lib";
use Test::More;
use Walletd;

plan skip_all => 'set WALLETD_SPEED=1 to measure' unless $ENV{WALLETD_SPEED};
plan skip_all => 'needs wrk' if `wrk -v 2>&1` !~ /^wrk/;

Walletd::build();
my $output = Walletd::root() . '/wallet/bench --sync off --seconds 5';
my @lines = split /\n/, `$output 2>&1`;
my ($figures, $stats, $audit) = map { Walletd::decode($_) } @lines[-3 .. -1];
cmp_ok($figures->{per_second} // 0, '>=', 10000, 'ten_thousand_settlements_per_second') or diag join "\n", @lines;
is($figures->{bad}, 0, 'all_of_them_answered_200');
cmp_ok($stats->{settle}{effects}, '>=', $figures->{per_second} * 4, 'all_of_them_effects');
ok($audit->{ok}, 'the_ledger_is_sound');
done_testing;

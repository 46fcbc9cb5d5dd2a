#!/usr/bin/perl
# The description of the interface: linted, and in step with the program.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/lib";
use Test::More;
use Walletd qw(new_key);

my $source = Walletd::root() . '/wallet';

sub slurp { my ($path) = @_; open my $in, '<', $path or die "$path: $!"; local $/; return <$in> }

SKIP: {
	my $output = `'$source/lint-openapi' 2>&1`;
	my $status = $? >> 8;
	skip 'needs python3-jsonschema and python3-yaml', 1 if $status == 77;
	is($status, 0, 'the_description_passes_the_linter') or diag $output;
}

my $yaml = slurp("$source/openapi.yaml");
like($yaml, qr/^openapi: 3\.1\./, 'it_is_openapi_3.1');

# paths and methods of the program and of the description
my %served = map { $_ => 1 } map { s{/api/wallets/settlements/$}{/api/wallets/settlements/{key}}r }
	map { "$_->[0] $_->[1]" } pairs(slurp("$source/routes.c") =~ /\{"([A-Z]+)", "(\/[^"]*)"/g);
my (%described, $path);
for (split /\n/, $yaml =~ s/^components:.*//msr)
{
	$path = $1 if m{^  (/\S*):$};
	$described{ uc($1) . " $path" } = 1 if m{^    (get|put|post|delete):$};
}
is_deeply(\%described, \%served, 'each_path_of_the_program_is_described_and_no_other');

# codes
my ($enum) = $yaml =~ /^        code:\n.*?enum:\n((?:\s+- [A-Z_]+\n)+)/ms;
my %codes = map { $_ => 1 } $enum =~ /([A-Z_]+)/g;
my %given = map { $_ => 1 } map { slurp($_) =~ /"((?:INVALID|INSUFFICIENT|USER|RESERVATION|KEY|STALE|UNKNOWN)_[A-Z_]+)"/g } glob "$source/*.c";
is_deeply(\%given, \%codes, 'each_code_of_the_program_is_described_and_no_other');

# actions, and members of a rule
my ($actions) = $yaml =~ /^        action:\n\s+enum:\n((?:\s+- [a-z_]+\n)+)/m;
my $rules = slurp("$source/fault_rule.c");
is_deeply([ sort $actions =~ /- ([a-z_]+)/g ], [ sort $rules =~ /\[ACTION_\w+\] = \{"([a-z_]+)"/g ], 'each_action_is_described');
my ($rule) = $yaml =~ /^    FaultRule:\n(.*)/ms;
my %members = map { $_ => 1 } $rule =~ /^(?:        |            )([a-z_]+):(?= |$)/mg;
delete @members{qw(type enum description additionalProperties properties)};
my ($unpack) = $rules =~ /json_unpack_ex\((.*?)== 0/s;
is_deeply(\%members, { map { $_ => 1 } $unpack =~ /"([a-z_]+)", (?:&|\n)/g, 'match' }, 'each_member_of_a_rule_is_described')
	or diag explain [ \%members, $unpack ];

# a live report has what is described
my $wallet = Walletd->start;
$wallet->fund_alice_and_bob;
$wallet->settle($wallet->trade, new_key());
my ($audit) = $yaml =~ /^    Audit:\n(.*?)^    \w+:$/ms;
is_deeply([ sort keys %{ $wallet->audit } ], [ sort $audit =~ /^        ([a-z_]+):/mg ], 'the_audit_is_as_described');
my ($stats) = $yaml =~ /^    Stats:\n(.*?)^    \w+:$/ms;
is_deeply([ sort keys %{ $wallet->stats } ], [ sort $stats =~ /^        ([a-z_]+):/mg ], 'the_stats_are_as_described');
my ($posting) = $yaml =~ /^    Posting:\n(.*?)^    \w+:$/ms;
is_deeply([ sort keys %{ ($wallet->ledger)[0] } ], [ sort $posting =~ /^        ([a-z_]+):/mg ], 'a_posting_is_as_described');
is($wallet->stop, 0, 'ends_cleanly');
done_testing;

sub pairs
{
	my @out;
	while (my ($a, $b) = splice @_, 0, 2) { push @out, [ $a, $b ] }
	return @out;
}

#!/usr/bin/perl
# What promtool says of the files in monitoring/.
use strict;
use warnings;
use Cwd qw(abs_path);
use FindBin;
use IPC::Run;
use JSON::PP ();
use Test::More;

my $root = abs_path("$FindBin::Bin/../..");
chdir "$root/monitoring" or die $!;

sub promtool_likes
{
	my ($name, @arguments) = @_;
	my $ok = IPC::Run::run([ 'promtool', @arguments ], '<', \undef, '>', \my $out, '2>&1');
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	ok($ok, $name) or diag($out);
}

sub slurp { open my $in, '<', $_[0] or die "$_[0]: $!"; local $/; return <$in> }

promtool_likes('prometheus.yml is a configuration', qw(check config prometheus.yml));
promtool_likes('alerts.yml has rules and nothing to complain of', qw(check rules --lint=all --lint-fatal alerts.yml));
promtool_likes('they fire when they should, and not otherwise', qw(test rules alerts_test.yml));

# Whoever gets an alert finds what to do.
my @alerts = slurp('alerts.yml') =~ /- alert: (\w+)/g;
my @documented = slurp("$root/docs/monitoring.md") =~ /^### (Settlement\w+)/mg;
cmp_ok(scalar @alerts, '>=', 8, 'there are alerts');
is_deeply([ sort @documented ], [ sort @alerts ], 'docs/monitoring.md says of each what to do');

# A dashboard that Grafana would show as it is meant.
my $dashboard = JSON::PP::decode_json(slurp('grafana.json'));
my (%ids, @taken, @overlapping, @outside);
for my $panel (@{ $dashboard->{panels} })
{
	my $at = $panel->{gridPos};
	$ids{ $panel->{id} }++;
	push @outside, $panel->{title} if $at->{x} + $at->{w} > 24;
	for my $x ($at->{x} .. $at->{x} + $at->{w} - 1)
	{
		for my $y ($at->{y} .. $at->{y} + $at->{h} - 1)
		{
			push @overlapping, $panel->{title} if $taken[$x][$y]++;
		}
	}
}
is_deeply([ grep { $ids{$_} > 1 } keys %ids ], [], 'panels have ids of their own');
is_deeply(\@overlapping, [], 'none lies over another');
is_deeply(\@outside, [], 'nor beyond the edge');
is_deeply([ map { $_->{title} } grep { $_->{type} ne 'row' && !@{ $_->{targets} // [] } } @{ $dashboard->{panels} } ], [], 'each shows something');

done_testing();

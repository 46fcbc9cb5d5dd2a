package Report;

# The table at the end, and the story of each trade that went wrong.

use strict;
use warnings;

use List::Util qw(sum0);
use Recovery;
use Watch;

my @wrong = qw(duplicates lost phantom not_terminal unannounced state_differences balance_differences);
my $most_stories = 5;

# Trades that need to be explained.
sub guilty
{
	my ($found) = @_;
	my %seen;
	my @ids = grep { !$seen{$_}++ } map { s/: .*//r } map { @{ $found->{$_} } } @wrong[ 0 .. $#wrong - 1 ];
	return splice @ids, 0, $most_stories;
}

sub write
{
	my ($out, $arena, $options, $found, $stories, $drained) = @_;
	my @violations = @{ $arena->{violations} // [] };
	push @violations, map { $found->{counts}{$_} ? "$_ $found->{counts}{$_}: " . join('; ', first(5, @{ $found->{$_} })) : () } @wrong;
	print $out "timeline of $_\n$stories->{$_}\n\n" for sort keys %$stories;
	print $out "VIOLATION $_\n" for @violations;
	my @rows = rows($arena, $options, $found, $drained);
	printf $out "%-26s %s\n", @$_ for @rows;
	printf $out "%-26s %s\n", 'result', @violations ? scalar(@violations) . ' violations' : 'nothing twice, nothing lost';
	return !@violations;
}

sub first { my ($n, @list) = @_; return splice @list, 0, $n }

sub rows
{
	my ($arena, $options, $found, $drained) = @_;
	my $played = $arena->{played};
	my @recovery = Recovery::figures();
	return (
		[ seed => $options->{seed} ],
		[ minutes => $options->{minutes} ],
		[ trades => "$found->{trades} ($found->{settled} settled, $found->{dead} dead)" ],
		(map { [ $_ => by_count(%{ $played->{$_} }) ] } sort grep { $_ ne 'kill' } keys %$played),
		[ 'wallet and proxy, by kind' => by_count(map { (s/^\w+: //r => $arena->{kinds}{$_}) } sort keys %{ $arena->{kinds} }) ],
		[ kills => by_count(%{ $played->{kill} // {} }) ],
		[ 'faults that did not apply' => by_count(%{ $arena->{failed} // {} }) ],
		(map { [ s/_/ /r => $found->{counts}{$_} ] } @wrong),
		[ 'unknown left' => $found->{unknown} ],
		[ 'dead by class' => dead($arena) ],
		[ 'recovery (s)' => $recovery[0] ? sprintf('p50 %.2f, p99 %.2f, max %.2f of %d', @recovery[ 1 .. 3 ], $recovery[0]) : '-' ],
		latency_rows($arena),
		[ 'drained after (s)' => sprintf '%.1f', $drained ],
		memory_row(),
		[ seed => $options->{seed} ]);
}

sub by_count
{
	my %count = @_;
	my $all = sum0(values %count);
	return 0 unless $all;
	return "$all: " . join(', ', map { "$_ $count{$_}" } sort { $count{$b} <=> $count{$a} || $a cmp $b } keys %count);
}

sub dead
{
	my ($arena) = @_;
	return $arena->try(<<'SQL') // '-';
SELECT string_agg(concat_ws(' ', class, code, n), ', ' ORDER BY n DESC)
FROM (SELECT class, code, count(*) AS n FROM settlement.dlq GROUP BY 1, 2) d
SQL
}

my %meaning = (up => 'INSERT (ms), wallet up', down => 'INSERT (ms), wallet down', rain => 'INSERT (ms), wallet bad');

sub latency_rows
{
	my ($arena) = @_;
	my $latencies = Watch::latencies($arena->{directory});
	return map { $latencies->{$_} ? [ $meaning{$_} => sprintf 'p50 %.2f, p99 %.2f of %d', @{ $latencies->{$_} }{qw(p50 p99 n)} ] : () } qw(up down rain);
}

sub memory_row
{
	my $peak = Watch::peak();
	return [ 'worker, at most' => sprintf '%.1f MB anonymous, %.1f MB shared, %.1f MB resident in all; %d open files',
		(map { $_ / 1024 } @$peak{qw(RssAnon RssShmem VmRSS)}), $peak->{files} ];
}

1;

package Watch;

# Peak memory and open files of the workers, from /proc; and how long INSERTs
# took, from what the inserters wrote.
#
# Memory is said in parts: anonymous pages are the worker's own, shared ones are
# the server's buffers, which each process comes to have touched.

use strict;
use warnings;

use Arena;
use List::Util qw(max sum0);

my %peak = (RssAnon => 0, RssShmem => 0, VmRSS => 0, files => 0);

sub sample
{
	my ($arena) = @_;
	for my $pid ($arena->processes(qr/settlement worker/))
	{
		open my $in, '<', "/proc/$pid/status" or next;
		local $/;
		my $status = <$in> // next;
		while ($status =~ /^(VmRSS|RssAnon|RssShmem):\s+(\d+) kB/mg) { $peak{$1} = max($peak{$1}, $2) }
		opendir my $dir, "/proc/$pid/fd" or next;
		$peak{files} = max($peak{files}, scalar(grep { /^\d/ } readdir $dir));
	}
}

sub peak { return \%peak }

# {weather => { n, p50, p99 }} in milliseconds.
sub latencies
{
	my ($directory) = @_;
	my (%buckets, %result);
	for my $file (glob "$directory/latency.*")
	{
		open my $in, '<', $file or next;
		while (<$in>) { my ($weather, $bucket, $n) = split; $buckets{$weather}{$bucket} += $n }
	}
	for my $weather (keys %buckets)
	{
		my $n = sum0(values %{ $buckets{$weather} });
		$result{$weather} = { n => $n, map { ("p$_" => quantile($buckets{$weather}, $n * $_ / 100)) } 50, 99 };
	}
	return \%result;
}

# Bucket b holds exp(b / 20) microseconds, as in Inserter.
sub quantile
{
	my ($buckets, $rank) = @_;
	for my $bucket (sort { $a <=> $b } keys %$buckets)
	{
		return exp(($bucket + 0.5) / 20) / 1000 if ($rank -= $buckets->{$bucket}) <= 0;
	}
}

1;

package Recovery;

# How long after a crash, or after the wallet's return, until the next trade is
# settled.  Measured only where nothing else keeps trades from settling.

use strict;
use warnings;

use Time::HiRes qw(time sleep);

my $patience = 60;
my @seconds;

# Do something that restarts the server, and wait until it settles trades again.
sub around
{
	my ($arena, $crash) = @_;
	my $measured = $arena->weather eq 'up' && $arena->is_loaded;
	$arena->begin(crash => 'other');
	my $began = time;
	my @times;
	my $ok = eval { $crash->(); push @times, time; $arena->wait_connect($patience); push @times, time; 1 };
	my $error = $@;
	await($arena, $began, 0) if $ok && $measured;
	$arena->log('  after ' . join ', ', map { sprintf '%.2f', $_ - $began } @times, time);
	$arena->end('crash');
	die $error unless $ok;
}

# The workers' own counts start from 0 with the server.
sub settled { my ($arena) = @_; return $arena->try('SELECT coalesce(sum(settled), 0) FROM settlement.workers') // 0 }

sub await
{
	my ($arena, $began, $before) = @_;
	until (settled($arena) > $before)
	{
		$arena->violation("nothing settles $patience s after $arena->{last_fault}"), return if time - $began > $patience;
		return unless $arena->is_loaded;
		sleep 0.01;
	}
	push @seconds, time - $began;
}

# (number, p50, p99, max)
sub figures
{
	my @sorted = sort { $a <=> $b } @seconds;
	return (0) unless @sorted;
	return (scalar @sorted, @sorted[ $#sorted * 0.5, $#sorted * 0.99, $#sorted ]);
}

1;

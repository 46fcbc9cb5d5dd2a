package Kills;

# Faults that end or freeze processes of the server.

use strict;
use warnings;

use Arena;
use Recovery;
use Schedule;
use Time::HiRes qw(time sleep);

my $takeover_grace = 10;	# TAKEOVER_GRACE_MS in src/worker/worker.h

# After some crashes in a row the server holds its workers back for seconds
# (workers_after in src/shared/shmem.c), but not one that was started anew: about
# as many kills are of the latter kind.
sub catalogue
{
	return (
		(map { { group => 'kill', %$_ } }
			{ name => 'kill worker', weight => 16, play => killing(qr/settlement worker/) },
			{ name => 'kill backend', weight => 8, play => killing(qr/engine postgres/) },
			{ name => 'kill launcher', weight => 4, play => killing(qr/settlement launcher/) },
			{ name => 'kill auxiliary', weight => 3, play => killing(qr/checkpointer|writer|autovacuum|walsender/) },
			{ name => 'kill postmaster', weight => 11, play => \&kill_postmaster },
			{ name => 'kill everything', weight => 12, play => \&kill_everything },
			{ name => 'kill careless', weight => 4, play => \&kill_careless, draw => sub { (seconds => Schedule::between(0.1, 1)) } },
			{ name => 'immediate stop', weight => 9, play => restarting('immediate') }),
		(map { { group => 'stop', %$_ } }
			{ name => 'fast restart', weight => 3, play => restarting('fast') },
			{ name => 'terminate worker', weight => 6, play => terminating(qr/settlement worker/) },
			{ name => 'terminate all workers', weight => 2, play => terminating(qr/settlement worker/, 'all') },
			{ name => 'terminate launcher', weight => 2, play => terminating(qr/settlement launcher/) },
			{ name => 'terminate backend', weight => 3, play => terminating(qr/engine postgres/) },
			{ name => 'freeze worker', weight => 1.2, play => \&freeze_worker,
				draw => sub { (seconds => Schedule::one_of(0.5, 3, 11.5 + rand 2)) }, each => [ { seconds => 0.5 } ] }));
}

sub chosen
{
	my ($arena, $pattern, $pick) = @_;
	my $deadline = time + 3;	# it may be about to start
	my @pids;
	until (@pids = $arena->processes($pattern))
	{
		die "there is none\n" if time > $deadline;
		$arena->idle(0.05);
	}
	return $pids[ $pick * @pids ];
}

# The death of a process of its restarts the server.
sub killing
{
	my ($pattern) = @_;
	return sub {
		my ($arena, $parameters) = @_;
		my $pid = chosen($arena, $pattern, $parameters->{pick});
		Recovery::around($arena, sub {
			kill KILL => $pid;
			die "$pid does not die\n" if Arena::wait_gone(10, $pid);
		});
	};
}

# Its children must notice, end by themselves, and leave the shared memory.
sub kill_postmaster
{
	my ($arena) = @_;
	my $node = $arena->{node};
	Recovery::around($arena, sub {
		my @children = Arena::children($node->{_pid});
		kill KILL => $node->{_pid};
		my @left = Arena::wait_gone(30, $node->{_pid}, @children);
		$arena->violation('processes outlive their postmaster: ' . join(', ', map { "$_ " . Arena::title($_) } @left)) if @left;
		kill KILL => @left;
		$node->{_pid} = undef;
		$arena->start_server($node);
	});
}

sub kill_everything
{
	my ($arena) = @_;
	Recovery::around($arena, sub {
		$arena->kill_server($arena->{node});
		$arena->start_server($arena->{node});
	});
}

# Nobody but the workers waits for the disk before it: what was inserted in the
# last moments is lost, and must not have been paid.
sub kill_careless
{
	my ($arena, $parameters) = @_;
	$arena->tell(careless => 1);
	my $ok = eval { $arena->idle($parameters->{seconds}); kill_everything($arena); 1 };
	my $error = $@;
	$arena->tell(careless => 0);
	die $error unless $ok;
}

sub restarting
{
	my ($mode) = @_;
	return sub {
		my ($arena) = @_;
		Recovery::around($arena, sub {
			$arena->stop_server($arena->{node}, $mode);
			$arena->start_server($arena->{node});
		});
	};
}

sub terminating
{
	my ($pattern, $all) = @_;
	return sub {
		my ($arena, $parameters) = @_;
		kill TERM => $all ? $arena->processes($pattern) : chosen($arena, $pattern, $parameters->{pick});
	};
}

# Up to longer than the others wait before they take its trades over.  Stopped
# while it extends a table, as may happen, it stops all who insert as well.
sub freeze_worker
{
	my ($arena, $parameters) = @_;
	my $pid = chosen($arena, qr/settlement worker/, $parameters->{pick});
	$arena->begin(frozen => 'other');
	kill STOP => $pid;
	$arena->idle($parameters->{seconds});
	kill CONT => $pid;
	$arena->end('frozen');
}

1;

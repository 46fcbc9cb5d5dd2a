package Replica;

# A synchronous standby that joins, crashes, and takes over.
#
# While it is there every COMMIT waits for it, and what is sent waits for it too
# (settlement.send_after), so that a failover may neither lose an acknowledged
# trade nor pay one that it does not know.  The old primary is stopped before or,
# worse, killed only after the promotion.  It comes back as the next standby, by
# pg_rewind or as a new copy.

use strict;
use warnings;

use Arena;
use PostgreSQL::Test::Cluster;
use Recovery;
use Schedule;
use File::Path qw(remove_tree);
use Time::HiRes qw(time sleep);

sub catalogue
{
	return (
		{ group => 'standby', name => 'standby joins', weight => 4, play => \&join_if_alone,
			draw => sub { (way => Schedule::one_of('copy', 'rewind')) }, each => [ map { { way => $_ } } qw(copy rewind rewind) ] },
		{ group => 'standby', name => 'standby crash', weight => 2, play => \&crash_standby,
			draw => sub { (seconds => Schedule::one_of(0, 0.5, 2)) }, each => [ { seconds => 0.5 } ] },
		{ group => 'standby', name => 'failover', weight => 4, play => \&fail_over,
			draw => sub { (old => Schedule::one_of(qw(killed stopped alive alive)), seconds => Schedule::between(0, 2)) },
			each => [ map { { old => $_, seconds => 0.5 } } qw(stopped killed alive) ] });
}

# ---------------------------------------------------------------- joining

sub join_if_alone
{
	my ($arena, $parameters) = @_;
	die "there is a standby\n" if $arena->{standby};
	my $old = delete $arena->{retired};
	$arena->{standby} = $old && $parameters->{way} eq 'rewind' && rewind_old($arena, $old) ? $old : copy($arena, $old);
	$arena->start_server($arena->{standby});
	synchronize($arena);
}

# From now on commits wait for it.
sub synchronize
{
	my ($arena) = @_;
	$arena->during(joining => 'other', sub {
		$arena->insist(sub {
			$arena->ask("ALTER SYSTEM SET synchronous_standby_names = 'chaos'");
			$arena->ask('ALTER SYSTEM SET settlement.send_after = standby');
			$arena->ask('SELECT pg_reload_conf()');
		});
		wait_synchronous($arena, 30) or $arena->violation('the standby does not become synchronous');
	});
}

sub is_synchronous
{
	my ($arena) = @_;
	return $arena->try(q{SELECT count(*) FROM pg_stat_replication WHERE application_name = 'chaos' AND sync_state = 'sync'});
}

sub wait_synchronous
{
	my ($arena, $seconds) = @_;
	my $deadline = time + $seconds;
	until (is_synchronous($arena))
	{
		return 0 if time > $deadline;
		$arena->idle(0.05);
	}
	$arena->idle(0.2);	# every session has read the settings
	return 1;
}

sub copy
{
	my ($arena, $old) = @_;
	my $node = $arena->{node};
	remove_tree($old->data_dir) if $old;
	my $new = $old // PostgreSQL::Test::Cluster->new('server' . ++$arena->{n_nodes});
	mkdir $new->archive_dir;
	Arena::run_quietly('pg_basebackup', '-D', $new->data_dir, '-h', $node->host, '-p', $node->port, '-c', 'fast', '--no-sync')
		or die "pg_basebackup failed\n";
	chmod 0700, $new->data_dir;
	configure($arena, $new);
	return $new;
}

# False when it cannot be: then a copy is taken.  Before 16, pg_rewind takes the
# timeline of the last checkpoint, and without one since the promotion leaves the
# old primary as it was.
sub rewind_old
{
	my ($arena, $old) = @_;
	$arena->ask('CHECKPOINT');
	return unless Arena::run_quietly('pg_rewind', '-D', $old->data_dir, '--no-sync',
		'--source-server=' . $arena->{node}->connstr('postgres'));
	configure($arena, $old);
	$arena->count_kind('standby: rewound');
	return 1;
}

sub configure
{
	my ($arena, $new) = @_;
	my ($port, $host, $primary) = ($new->port, $new->host, $arena->{node}->connstr);
	$new->append_conf('postgresql.conf', <<"CONF");
port = $port
unix_socket_directories = '$host'
primary_conninfo = '$primary application_name=chaos'
CONF
	# What is set for a while on the primary ends there; a copy of it would not.
	$new->append_conf('postgresql.auto.conf', join '', map { "$_\n" } "synchronous_standby_names = ''",
		'settlement.send_after = local', 'settlement.enabled = on', 'settlement.rate_limit = 0');
	$new->append_conf('standby.signal', '');
}

# ---------------------------------------------------------------- going

# Our own session is made anew before and after.
sub without_standby
{
	my ($arena, $code) = @_;
	$arena->hang_up;
	local $arena->{standby_is_down} = 1;
	my $ok = eval { $code->(); 1 };
	my $error = $@;
	$arena->hang_up;
	die $error unless $ok;
}

sub crash_standby
{
	my ($arena, $parameters) = @_;
	my $standby = $arena->{standby} or die "there is none\n";
	$arena->during(standby => 'other', sub {
		without_standby($arena, sub {
			$arena->kill_server($standby);
			$arena->idle($parameters->{seconds});
			$arena->start_server($standby);
		});
		wait_synchronous($arena, 30) or $arena->violation('the standby does not come back');
	});
}

sub fail_over
{
	my ($arena, $parameters) = @_;
	die "there is no standby\n" unless $arena->{standby};
	die "the standby is not synchronous\n" unless wait_synchronous($arena, 10);
	my ($old, $new, $how) = (@$arena{qw(node standby)}, $parameters->{old});
	$arena->count_kind("failover: $how");
	Recovery::around($arena, sub {
		$arena->kill_server($old) if $how eq 'killed';
		$arena->stop_server($old, 'fast') if $how eq 'stopped';
		Arena::run_quietly('pg_ctl', '-w', '-t', 60, '-D', $new->data_dir, 'promote') or die "no promotion\n";
		@$arena{qw(node standby)} = ($new, undef);
		$arena->tell;
		$arena->hang_up;
		return if $how ne 'alive';
		# it does not know yet, and still has sessions and requests
		$arena->idle($parameters->{seconds});
		$arena->kill_server($old);
	});
	$arena->{retired} = $old;
}

1;

# Rounds of power loss; test/chaos/power_loss starts this and does what needs root.
# usage: power_loss.pl DIRECTORY ROUNDS SEED
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin", "$FindBin::Bin/../../lib";
use IO::Handle;
use IPC::Run;
use Ledgers;
use Settlement;
use Test::More;
use Time::HiRes qw(time sleep);

my ($work, $rounds, $seed) = @ARGV;
my $per_round = 20_000;		# more than an engine can insert before the power fails
srand $seed;

open my $ask, '>', "$work/ask" or die $!;
open my $answers, '<', "$work/answer" or die $!;
$ask->autoflush(1);

sub root_does
{
	my ($word) = @_;
	print $ask "$word\n";
	my $answer = <$answers> // '';
	die "root could not $word\n" if $answer ne "ok\n";
}

# Everything that PostgreSQL keeps is on the disk that will lose power; the rest
# of its directory is not.  The wallet loses some replies, so that there are
# retries and unknown outcomes at each cut.
my $s = Settlement->start(data => "$work/disk", conf => <<'CONF');
fsync = on
synchronous_commit = on
full_page_writes = on
checkpoint_timeout = 30s
max_wal_size = 128MB
wal_writer_delay = 10s
wal_writer_flush_after = 0
settlement.retry_initial_backoff = '20ms'
settlement.retry_max_backoff = '200ms'
settlement.breaker_initial_open = '20ms'
settlement.breaker_max_open = '200ms'
settlement.max_attempts = 1000
CONF
$s->faults({ match => { p => 0.02 }, action => 'close', apply => \1 }, { match => { p => 0.02 }, action => 'close' },
	{ match => { p => 0.1 }, action => 'pass', delay_ms => 5, jitter_ms => 40 });

# What initdb and we have written so far is no part of the game.
system('sync', '-f', "$work/disk") == 0 or die 'sync failed';

my %file = map { $_ => "$work/tap/$_" } qw(acknowledged maybe);

sub add_ids
{
	my ($what, @ids) = @_;
	open my $out, '>>', $file{$what} or die $!;
	print $out map { "$_\n" } @ids;
	close $out or die $!;
}

# An engine: single INSERTs, one after the other, and its word on each that was
# acknowledged.
sub start_engine
{
	my ($name, $setting) = @_;
	my %engine = (name => $name, script => "$work/tap/$name.sql", words => "$work/tap/$name.out", err => '');
	open my $out, '>', $engine{script} or die $!;
	print $out "SET synchronous_commit = $setting;\n";
	print $out "SELECT public.put('$name-$_') \\g /dev/null\n\\echo $name-$_\n" for 1 .. $per_round;
	close $out;
	$engine{handle} = IPC::Run::start([ 'psql', '-X', '-q', '-v', 'ON_ERROR_STOP=1', '-d', $s->node->connstr('postgres') . ' user=engine',
		'-f', $engine{script} ], '>', $engine{words}, '2>', \$engine{err});
	return \%engine;
}

# (acknowledged ids, the id that was under way)
sub end_engine
{
	my ($engine) = @_;
	eval { $engine->{handle}->finish };
	open my $in, '<', $engine->{words} or die $!;
	chomp(my @ids = <$in>);
	return (\@ids, "$engine->{name}-" . (@ids + 1));
}

sub children_of
{
	my ($parent) = @_;
	my @children;
	for my $stat (glob '/proc/[0-9]*/stat')
	{
		open my $in, '<', $stat or next;
		my ($pid, $ppid) = (<$in> // '') =~ /^(\d+) \(.*\) \S (\d+)/ or next;
		push @children, $pid if $ppid == $parent;
	}
	return @children;
}

# Nothing of the server may outlive the disk.
sub kill_server
{
	my ($postmaster) = @_;
	my @processes = ($postmaster, children_of($postmaster));
	$s->node->kill9;
	kill KILL => @processes;
	wait_for(sub { !grep { kill 0 => $_ } @processes }, 'the server to be gone');
}

my %total = (acknowledged => 0, vanished => 0);

for my $round (1 .. $rounds)
{
	my ($postmaster) = PostgreSQL::Test::Utils::slurp_file($s->node->data_dir . '/postmaster.pid') =~ /^(\d+)/;
	my @durable = map { start_engine("d$round-$_", 'on') } 1 .. 2;
	my @loose = map { start_engine("l$round-$_", 'off') } 1 .. 2;
	sleep 1 + rand 3;
	my $effects = $s->effects;
	root_does('cut');
	kill_server($postmaster);
	my (%told, @loose_ids);
	for my $engine (@durable)
	{
		my ($ids, $next) = end_engine($engine);
		add_ids(acknowledged => @$ids);
		add_ids(maybe => $next);
		$told{durable} += @$ids;
	}
	for my $engine (@loose)
	{
		my ($ids, $next) = end_engine($engine);
		add_ids(maybe => @$ids, $next);
		push @loose_ids, @$ids;
	}
	root_does('remount');
	my $start = time;
	$s->node->start;
	my $started = time - $start;
	wait_for(sub { $s->sql("SELECT count(*) FROM trades WHERE settlement_status = 'PENDING'") eq '0' }, 'all to settle', 300);
	wait_for(sub { $s->sql('SELECT (SELECT count(*) FROM settlement.claims) + (SELECT count(*) FROM settlement.queue) + (SELECT count(*) FROM settlement.deferred)') eq '0' },
		'nothing to be left over', 60);
	my $drained = time - $start - $started;
	my $ledgers = Ledgers->new(node => $s->node, wallet => $s->wallet, %file);
	my $found = $ledgers->check;
	my $vanished = @loose_ids - $s->sql("SELECT count(*) FROM trades WHERE trade_id LIKE 'l$round-%'");
	is($found->{violations}, 0, sprintf 'round %d: %d trades acknowledged, %d with synchronous_commit off of which %d vanished, %d paid before the cut; up in %.1f s, drained in %.1f s; %s',
		$round, $told{durable}, scalar @loose_ids, $vanished < 0 ? 0 : $vanished, $effects, $started, $drained, $found->{summary});
	diag($ledgers->timeline($_)) for map { my @ids = @$_; @ids[ 0 .. ($#ids < 2 ? $#ids : 2) ] } @$found{qw(duplicates lost phantom)};
	diag(join "\n", @{ $found->{state_differences} }[ 0 .. 9 ]) if $found->{counts}{state_differences};
	$total{acknowledged} += $told{durable};
	$total{vanished} += $vanished if $vanished > 0;
	last if $found->{violations};
}
my $audit = $s->wallet->audit;
ok($audit->{ok}, "the wallet's own audit finds nothing");
note("seed $seed: $total{acknowledged} acknowledged trades, none lost; $total{vanished} vanished that were inserted with synchronous_commit off, none paid")
	if Test::More->builder->is_passing;
done_testing();

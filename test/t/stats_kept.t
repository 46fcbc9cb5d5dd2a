#!/usr/bin/perl
# Counters and histograms outlast workers and a clean restart, begin at zero after a
# crash, and are never those of another database.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib";
use Settlement;
use PostgreSQL::Test::Cluster;
use Test::More;

my $s = Settlement->start(streaming => 1);
my $file = 'pg_stat/settlement.stat';

# What does not change while nothing happens.
my $numbers = <<'SQL';
SELECT string_agg(concat_ws(' ', name, labels ->> 'le', value), E'\n' ORDER BY name, labels)
FROM settlement.metrics
WHERE name IN ('submitted', 'settled', 'processed', 'requests', 'breaker_opened', 'stats_reset_timestamp_seconds')
   OR name ~ '^(queue_wait|request|settle)_duration|^claim_size'
SQL
my $reset = "SELECT value FROM settlement.metrics WHERE name = 'stats_reset_timestamp_seconds'";

sub is_kept
{
	my ($before, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is($s->sql($numbers), $before, $name);
}

sub begins_at_zero
{
	my ($former, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is($s->sql("SELECT value FROM settlement.metrics WHERE name IN ('submitted', 'settled', 'breaker_opened') GROUP BY value"), 0, $name);
	is($s->sql("SELECT sum(value) FROM settlement.metrics WHERE name LIKE '%_count' AND name NOT LIKE 'turn%'"), 0, '... histograms too');
	is($s->sql("SELECT value > $former FROM settlement.metrics WHERE name = 'stats_reset_timestamp_seconds'"), 't', '... and it says since when');
}

sub settles
{
	my ($name) = @_;
	$s->trades($name, 20);
	$s->settled_is("$name-", 20);
	$s->at_rest;
}

# Stop, do something to the file, start.
sub restart_with
{
	my ($change) = @_;
	$s->node->stop;
	$change->($s->node->data_dir . "/$file");
	$s->node->start;
	$s->wait_for_workers(2);
}

# However many: they are deleted in small portions, one after the other.
scenario old_attempts_are_forgotten => sub {
	$s->sql(<<'SQL');
INSERT INTO settlement.attempts (at, attached_id, trade_id, generation, attempt, verb, outcome, phase, duration, slot)
SELECT now() - i * interval '1 day' + interval '1 hour', 1, 'of-old', 0, 1, 'settle', 'retry', 'reply', '1 ms', 0
FROM generate_series(1, 40) i, generate_series(1, 2500)
SQL
	$s->node->restart;	# they are looked for at the start
	$s->becomes('SELECT count(*) FROM settlement.attempts', 75000, 'what is older than settlement.attempt_retention goes', 40);
	$s->sql('TRUNCATE settlement.attempts');
};

scenario kept => sub {
	$s->sql("SELECT settlement.breaker_open('test')");
	$s->sql('SELECT settlement.breaker_close()');
	settles('first');
	my $before = $s->sql($numbers);
	like($before, qr/^breaker_opened 1\n.*^settled 20\n/ms, 'something is counted');
	$s->sql('SELECT settlement.restart_worker(slot) FROM settlement.workers');
	$s->wait_for_workers(2);
	is_kept($before, 'when workers are restarted');
	$s->node->stop('smart');
	$s->node->start;
	is_kept($before, 'when the server is restarted');
	ok(!-e $s->node->data_dir . "/$file", 'no file is left that could grow stale');
	settles('second');
	like($s->sql($numbers), qr/^settled 40$/m, 'they count on');
	$before = $s->sql($numbers);
	$s->node->restart;
	is_kept($before, 'when it is restarted in a hurry');
	$s->node->stop;
	$s->sql_of_stopped('SELECT 1', '1', 'single-user mode comes and goes');
	$s->node->start;
	is_kept($before, 'that keeps them too');
};

scenario per_database => sub {
	$s->sql('CREATE DATABASE other');
	$s->node->safe_psql('other', 'CREATE EXTENSION settlement');
	$s->node->poll_query_until('other', "SELECT value = 2 FROM settlement.metrics WHERE name = 'workers'") or die;
	my $before = $s->sql($numbers);
	my $since = $s->node->safe_psql('other', $reset);
	cmp_ok($since, '>', $s->sql($reset), 'each database counts from its own first use');
	is($s->node->safe_psql('other', "SELECT value FROM settlement.metrics WHERE name = 'settled'"), 0, '... its own trades');
	$s->node->restart;
	is_kept($before, 'both are kept');
	is($s->node->safe_psql('other', "SELECT value FROM settlement.metrics WHERE name = 'settled'"), 0, '... apart');
	$s->node->safe_psql('other', 'DROP EXTENSION settlement; CREATE EXTENSION settlement');
	is($s->node->safe_psql('other', "SELECT value > $since FROM settlement.metrics WHERE name = 'stats_reset_timestamp_seconds'"), 't', 'a new extension begins anew');
	$s->sql('DROP DATABASE other');
};

scenario crash => sub {
	my $former = $s->sql($reset);
	kill KILL => ($s->worker_pids)[0];
	$s->becomes("SELECT pg_postmaster_start_time() < to_timestamp(value) AND value > $former FROM settlement.metrics WHERE name = 'stats_reset_timestamp_seconds'", 't', 'counting began anew while the postmaster went on');
	begins_at_zero($former, 'after a crash counters begin at zero');
	$s->wait_for_workers(2);
	settles('crashed');
	my $before = $s->sql($numbers);
	$s->node->restart;
	is_kept($before, 'and are kept again');
};

scenario torn => sub {
	my $former = $s->sql($reset);
	my $offset = -s $s->node->logfile;
	restart_with(sub {
		my ($path) = @_;
		truncate $path, (-s $path) - 100 or die $!;
	});
	begins_at_zero($former, 'a file that is cut off is not believed');
	ok($s->node->log_contains(qr/LOG:  ignoring file "\Q$file\E"\n.*It is damaged/, $offset), '... and the log says so');

	settles('torn');
	$former = $s->sql($reset);
	restart_with(sub {
		my ($path) = @_;
		open my $out, '+<', $path or die $!;
		seek $out, -2000, 2;
		print $out 'x' or die $!;
		close $out or die $!;
	});
	begins_at_zero($former, 'nor one with a byte changed');
};

# The file of a stopped server goes along with a copy of its files.
scenario copies => sub {
	settles('copies');
	my $before = $s->sql($numbers);
	$s->node->backup('running');
	ok(!-e $s->node->backup_dir . "/running/$file", 'a base backup has no file');
	$s->node->stop;
	$s->node->backup_fs_cold('stopped');
	$s->node->start;
	ok(-e $s->node->backup_dir . "/stopped/$file", 'a copy of a stopped server has it');
	my $copy = PostgreSQL::Test::Cluster->new('copy');
	$copy->init_from_backup($s->node, 'stopped');
	$copy->start;
	is_kept($before, 'the original goes on counting');
	is($copy->safe_psql('postgres', "SELECT sum(value) FROM settlement.metrics WHERE name IN ('submitted', 'settled')"), 0, 'a copy begins at zero');
	ok($copy->log_contains(qr/ignoring file "\Q$file\E"\n.*another data directory/), '... and the log says why');
	$copy->stop;
};

$s->ledgers_are_equal;
done_testing();

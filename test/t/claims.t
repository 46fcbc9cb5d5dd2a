#!/usr/bin/perl
# Which trades the workers find, and that no two of them take the same one.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib";
use Settlement;
use Test::More;

# What is not announced is found by polling; with this, it is not found in time.
my $s = Settlement->start(conf => "settlement.poll_interval = '10min'\nsettlement.workers = 4");
my $node = $s->node;
$s->wait_for_workers(4);

sub pgbench
{
	my ($name, $script, $clients, $transactions) = @_;
	my $file = $node->basedir . "/$name";
	PostgreSQL::Test::Utils::append_to_file($file, $script);
	$node->command_ok([ 'pgbench', '-n', '-U', 'engine', '-c', $clients, '-j', 2, '-t', $transactions, '-f', $file, 'postgres' ],
		"$clients sessions insert");
}

# Ids drawn early, committed long after later ones were settled.
scenario late_committers => sub {
	my $requests = $s->requests;
	my @sessions = map { $s->session } 1 .. 8;
	for my $i (0 .. $#sessions)
	{
		$sessions[$i]->query_safe("BEGIN; SELECT public.put('late-$i', 5);");
		$s->trades("early-$i", 10);
	}
	$s->settled_is('early', 80, 'later ids settle meanwhile');
	for my $i (reverse 0 .. $#sessions)
	{
		$sessions[$i]->query_safe($i == 3 ? 'ROLLBACK' : 'COMMIT');
		$s->settled_is("late-$i", $i == 3 ? 0 : 5, "those of session $i", 20);
	}
	$_->quit for @sessions;
	is($s->requests - $requests, 80 + 7 * 5, 'one request for each');
	$s->at_rest;
	$s->ledgers_are_equal;
};

scenario many_late_committers => sub {
	my $requests = $s->requests;
	pgbench('late', <<'SQL', 16, 25);
\set ms random(0, 40)
BEGIN;
SELECT public.put('storm-' || :client_id || '-' || (random() * 1e15)::bigint, 3);
\sleep :ms ms
SELECT public.put('storm-' || :client_id || '-' || (random() * 1e15)::bigint, 2);
END;
SQL
	$s->settled_is('storm', 16 * 25 * 5, undef, 20);
	is($s->requests - $requests, 16 * 25 * 5, 'one request for each');
	$s->at_rest;
	$s->ledgers_are_equal;
};

scenario savepoints => sub {
	$s->engine(<<'SQL');
BEGIN;
SELECT put('sp-kept', 3);
SAVEPOINT a; SELECT put('sp-gone', 3); ROLLBACK TO a;
SAVEPOINT b; SELECT put('sp-kept-too', 3); RELEASE b;
COMMIT;
SQL
	$s->settled_is('sp-kept', 6, undef, 20);
	is($s->sql("SELECT count(*) FROM settlement.queue"), 0, 'nothing else is queued');
};

scenario commit_prepared => sub {
	$s->sql("BEGIN; SELECT put('prepared-$_', 5); PREPARE TRANSACTION 'p$_'") for 1 .. 3;
	$s->trades('meanwhile', 50);
	$s->settled_is('meanwhile', 50);
	is($s->sql('SELECT count(*) FROM settlement.queue'), 0, 'prepared ones are not visible');
	$s->sql("COMMIT PREPARED 'p1'");
	$s->settled_is('prepared-1', 5, 'they settle when they are committed', 20);
	$s->sql("ROLLBACK PREPARED 'p2'");
	$node->restart;
	$s->sql("COMMIT PREPARED 'p3'");
	$s->settled_is('prepared-3', 5, 'also after a restart', 20);
	is($s->sql("SELECT count(*) FROM trades WHERE trade_id LIKE 'prepared-2%'"), 0, 'not those that were rolled back');
	$s->at_rest;
	$s->ledgers_are_equal;
};

# Neither the session that prepares nor the one that commits tells what it was.
scenario a_prepared_pause => sub {
	$s->sql("BEGIN; INSERT INTO settlement.pauses (symbol, reason, by) SELECT DISTINCT symbol, 'prepared', 'x' FROM trades; PREPARE TRANSACTION 'pause'");
	$s->trades('before-pause', 5);
	$s->settled_is('before-pause', 5);
	$s->sql("BEGIN; CREATE TABLE unrelated (); PREPARE TRANSACTION 'unrelated'");
	$s->sql("COMMIT PREPARED 'unrelated'; COMMIT PREPARED 'pause'");
	$s->sql('SELECT settlement.wait_paused()');
	$s->trades('in-pause', 5);
	$s->becomes("SELECT count(*) FROM settlement.deferred WHERE reason = 'paused'", 5, 'a pause counts from the commit of its prepared transaction');
	$s->sql('SELECT settlement.resume(symbol) FROM settlement.pauses');
	$s->settled_is('in-pause', 5, 'until the end of the pause');
};

# Prepared early, and committed when the workers are far beyond: by more ids than
# one look behind the frontier covers, and by many transactions.
scenario an_old_prepared_transaction => sub {
	my $requests = $s->requests;
	$s->sql("BEGIN; SELECT put('old', 5); PREPARE TRANSACTION 'old'");
	$s->sql("BEGIN; SELECT put('never', 45000); ROLLBACK");
	$s->sql('DO $$ BEGIN FOR i IN 1 .. 20000 LOOP PERFORM pg_current_xact_id(); COMMIT; END LOOP; END $$');
	$s->trades('young', 50);
	$s->settled_is('young', 50, 'later ones settle');
	$s->sql("BEGIN; SELECT put('never', 1000); ROLLBACK");
	$s->trades('younger', 50);
	$s->settled_is('younger', 50);
	$s->sql("COMMIT PREPARED 'old'");
	$s->settled_is('old', 5, 'the old ones settle when they are committed', 20);
	is($s->requests - $requests, 105, 'one request for each');
	$s->at_rest;
	$s->ledgers_are_equal;
};

# A worker's own transactions that fail give back what they had reserved.
scenario a_claim_that_fails => sub {
	$s->sql('ALTER TABLE settlement.claims ADD CONSTRAINT broken CHECK (false) NOT VALID');
	$s->trades('unclaimed', 200);
	$s->becomes("SELECT value >= 5 FROM settlement.metrics WHERE name = 'turn_aborts'", 't', 'claims fail');
	$s->sql('ALTER TABLE settlement.claims DROP CONSTRAINT broken');
	$s->settled_is('unclaimed', 200);
	is($s->sql("SELECT count(*) FROM trades WHERE trade_id LIKE 'unclaimed%' AND settlement_attempts <> 1"), 0, 'each by one request');
	$s->at_rest;
	$s->ledgers_are_equal;
};

scenario rescan => sub {
	$s->sql(<<'SQL');
ALTER TABLE trades DISABLE TRIGGER settlement_enqueue;
SELECT put('silent', 20);
ALTER TABLE trades ENABLE TRIGGER settlement_enqueue;
SQL
	is($s->sql("SELECT settlement.enqueue_pending('trades')"), 20, 'a dry run counts what is queued nowhere');
	is($s->sql("SELECT settlement.enqueue_pending('trades', dry_run => false)"), 20, 'they are taken up');
	$s->settled_is('silent', 20, undef, 20);
	cmp_ok($s->lookups, '>=', 20, 'the wallet was asked first');
	$s->ledgers_are_equal;
};

scenario a_trade_enqueued_twice => sub {
	my $requests = $s->requests;
	$s->sql("SELECT settlement.pause('test')");
	$s->trade('twice', symbol => 'BTC/USDT');
	my $columns = $s->sql("SELECT string_agg(quote_ident(attname), ', ') FROM pg_attribute WHERE attrelid = 'settlement.queue'::regclass AND attnum > 1");
	$s->sql("INSERT INTO settlement.queue ($columns) SELECT $columns FROM settlement.queue WHERE trade_id = 'twice'");
	$s->sql('SELECT settlement.resume()');
	$s->status_is('twice', 'SETTLED');
	$s->at_rest;
	is($s->effects_of('twice'), 1, 'is booked once');
	$s->ledgers_are_equal;
};

# 20,000 trades, some in one transaction and some in many: when nothing fails,
# the wallet sees one request for each.
scenario two_workers_disjoint => sub {
	my ($requests, $effects) = ($s->requests, $s->effects);
	$s->trades('bulk', 16000);
	pgbench('disjoint', "SELECT public.put('each-' || :client_id || '-' || (random() * 1e15)::bigint);\n", 8, 500);
	$s->settled_is('bulk', 16000, 'all of one transaction settle', 120);
	$s->settled_is('each', 4000, 'all of many transactions settle', 120);
	is($s->requests - $requests, 20000, 'one request for each');
	is($s->effects - $effects, 20000, 'one effect of each');
	is($s->sql("SELECT count(*) FROM trades WHERE settlement_attempts <> 1 AND trade_id ~ '^(bulk|each)-'"), 0, 'one attempt for each');
	cmp_ok($s->sql('SELECT count(*) FROM settlement.workers WHERE settled > 0'), '>=', 2, 'several workers had a part');
	$s->at_rest;
	$s->ledgers_are_equal;
};

done_testing();

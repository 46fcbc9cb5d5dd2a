#!/usr/bin/perl
# Operators, tools and workers that act on the same dead letters at once: each
# trade ends once, and in one way.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib";
use Settlement;
use IPC::Run;
use Test::More;

my $s = Settlement->start(conf => "settlement.retry_initial_backoff = '20ms'");

# Run each SQL in a session of its own, all at the same time.
sub at_once
{
	my (@sql) = @_;
	my @runs;
	for my $sql (@sql)
	{
		my $run = { sql => $sql, in => $sql, out => '', err => '' };
		$run->{handle} = IPC::Run::start([ 'psql', '-XAtq', '-d', $s->node->connstr('postgres'), '-f', '-' ],
			'<', \$run->{in}, '>', \$run->{out}, '2>', \$run->{err});
		push @runs, $run;
	}
	$_->{handle}->finish for @runs;
	return @runs;
}

scenario redriven_by_many_at_once => sub {
	$s->trades('crowd', 1000, buyer => 'new', symbol => 'BTC/USDT');
	$s->becomes("SELECT count(*) FROM settlement.dlq WHERE code = 'USER_NOT_FOUND'", 1000, '1000 dead letters');
	$s->wallet->fund(qw(new USDT 1000000));
	my $requests = $s->requests;
	my @runs = at_once(map { "SELECT sum(redriven) FROM settlement.redrive_where(code => 'USER_NOT_FOUND', reason => 'run $_', dry_run => false)" } 1 .. 4);
	my $redriven = 0;
	$redriven += $_->{out} || 0 for @runs;
	is($redriven, 1000, 'together they redrive each once') or diag(explain(\@runs));
	$s->settled_is('crowd', 1000);
	is($s->requests - $requests, 1000, 'one request for each');
	$s->at_rest;
	$s->ledgers_are_equal;
};

scenario redriven_resolved_and_purged_at_once => sub {
	$s->trades('mess', 400, buyer => 'newer', symbol => 'BTC/USDT');
	$s->becomes("SELECT count(*) FROM settlement.dlq WHERE code = 'USER_NOT_FOUND'", 400, '400 dead letters');
	$s->wallet->fund(qw(newer USDT 1000000));
	my $each = sub { my ($act, $order) = @_; return <<SQL };
DO \$\$ DECLARE t text; BEGIN
    FOR t IN SELECT 'mess-' || i FROM generate_series(1, 400) AS i ORDER BY $order LOOP
        BEGIN PERFORM $act; EXCEPTION WHEN OTHERS THEN NULL; END;
        COMMIT;
    END LOOP; END \$\$;
SQL
	at_once(
		$each->("settlement.redrive(t, 'again')", 'i'),
		$each->("settlement.redrive(t, 'again')", 'i DESC'),
		$each->("settlement.resolve(t, 'FAILED', NULL, 'no more')", 'i % 20, i'),
		$each->("count(*) FROM settlement.dlq_purge(trade_id => t, dry_run => false, reason => 'tidy')", 'i % 7, i'));
	$s->at_rest;
	is($s->sql("SELECT count(*) FROM trades WHERE trade_id LIKE 'mess%' AND settlement_status NOT IN ('SETTLED', 'FAILED')"), 0,
		'each ends as SETTLED or FAILED');
	cmp_ok($s->sql("SELECT count(*) FROM trades WHERE trade_id LIKE 'mess%' AND settlement_status = 'SETTLED'"), '>', 0, 'some of them settled');
	is($s->sql('SELECT count(*) FROM settlement.discrepancies'), 0, 'nothing contradicts');
	$s->ledgers_are_equal;
};

# Redriven while it is being rejected again and again.
scenario redriven_while_it_dies => sub {
	$s->trades('undead', 20, buyer => 'nobody', symbol => 'BTC/USDT');
	$s->becomes("SELECT count(*) FROM settlement.dlq", 20, '20 dead letters');
	at_once(map { <<'SQL' } 1 .. 4);
DO $$ BEGIN
    FOR i IN 1 .. 30 LOOP
        PERFORM settlement.redrive_where(all_rows => true, reason => 'again', dry_run => false);
        COMMIT;
    END LOOP; END $$;
SQL
	$s->at_rest(20, 'each is dead once');
	is($s->sql("SELECT count(DISTINCT trade_id) FROM settlement.dlq"), 20, 'and not lost');
	$s->wallet->fund(qw(nobody USDT 1000));
	$s->sql("SELECT settlement.redrive_where(all_rows => true, reason => 'paid in', dry_run => false)");
	$s->settled_is('undead', 20);
	$s->at_rest;
	$s->ledgers_are_equal;
};

scenario many_dead_letters_are_redriven_slowly => sub {
	$s->trades('slowly', 60, buyer => 'newest', symbol => 'BTC/USDT');
	$s->becomes("SELECT count(*) FROM settlement.dlq", 60, '60 dead letters');
	$s->wallet->fund(qw(newest USDT 1000));
	$s->sql("SELECT settlement.redrive_where(all_rows => true, reason => 'slowly', per_second => 30, dry_run => false)");
	$s->becomes("SELECT redriven FROM settlement.redrives", 60, 'the workers take them');
	$s->settled_is('slowly', 60);
	is($s->sql("SELECT extract(epoch FROM finished_at - at) > 1.5 FROM settlement.redrives"), 't', 'at that pace');
	$s->at_rest;
	$s->ledgers_are_equal;
};

done_testing();

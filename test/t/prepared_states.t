#!/usr/bin/perl
# At 3 a.m.: thirteen states that an operator may find, and what status,
# explain() and doctor() say of each: the cause, and the next step.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib";
use Settlement;
use PostgreSQL::Test::Utils qw(slurp_file);
use Test::More;

my $s = Settlement->start(conf => <<'CONF');
fsync = on
settlement.request_timeout = '30s'
settlement.shutdown_timeout = '1s'
settlement.retry_initial_backoff = '50ms'
settlement.retry_max_backoff = '200ms'
settlement.breaker_initial_open = '100ms'
settlement.breaker_max_open = '300ms'
settlement.poll_interval = '200ms'
CONF
my $database = 'postgres';

sub ask { my ($sql) = @_; return $s->node->safe_psql($database, $sql) }

# Each of these becomes true in time, and shows what was said when it does not.
sub says
{
	my ($sql, $expected, $name) = @_;
	my $said = '';
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	eval { wait_for(sub { ($said = ask($sql)) =~ $expected }, $name) };
	return like($said, $expected, $name);
}

sub status_says { my ($expected) = @_; local $Test::Builder::Level = $Test::Builder::Level + 1;
	return says('SELECT state FROM settlement.status', $expected, 'status names the cause') }

# The cause and the next step come together: in one answer of explain(), in one row of
# doctor().  What is to be done is said in other words than what is the matter.
sub says_both
{
	my ($who, $sql, $cause, $next) = @_;
	my @said = ([ '', '' ]);
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $both = sub { my ($what, $then) = @{ $_[0] }; return $what =~ $cause && $then =~ $next };
	eval {
		wait_for(sub {
			@said = map { [ split /\t/, $_, 2 ] } split /\x1e/, ask($sql);
			@said = ([ '', '' ]) if !@said;
			return grep { $both->($_) } @said;
		}, $who);
	};
	my ($row) = ((grep { $both->($_) } @said), (grep { $_->[0] =~ $cause } @said), @said);
	like($row->[0], $cause, "$who names the cause");
	like($row->[1], $next, '... and the next step');
	return $row->[1];
}

# One sentence names the cause, and one what to do or what comes next.
sub explain_says
{
	my ($trade, $cause, $next) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return says_both('explain()', "SELECT said || E'\\t' || said FROM (SELECT string_agg(e, E'\\n') AS said FROM settlement.explain('$trade') e) x",
		$cause, $next);
}

# Returns the hint.
sub doctor_says
{
	my ($component, $status, $cause, $next) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return says_both("doctor(), as $component,", "SELECT string_agg(detail || E'\\t' || hint, E'\\x1e') FROM settlement.doctor() "
		. "WHERE component = '$component' AND status = '$status'", $cause, $next);
}

# What a hint says can be pasted: the statement in it.
sub follow
{
	my ($hint) = @_;
	my ($statement) = $hint =~ /(SELECT .*?;)/;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	ok($statement, 'the next step is a statement: ' . ($statement // $hint)) or return;
	return ask($statement);
}

# As a person sees it, with a word of advice for each finding.
sub status_fits
{
	my @lines = split /\n/, $s->node->safe_psql($database, 'SELECT * FROM settlement.status',
		extra_params => [ '--no-align', '--pset=format=aligned', '--pset=tuples_only=off' ]);
	my ($widest) = sort { $b <=> $a } map { length } @lines;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	cmp_ok($widest, '<=', 120, "status fits 120 columns: $lines[2]");
	like($lines[0], qr/^ *state +\| +ready/, '... in psql\'s own format');
	is(ask("SELECT component, detail FROM settlement.doctor() WHERE status <> 'ok' AND hint IS NULL"), '', 'doctor() has a hint for each finding');
}

scenario healthy => sub {
	$s->trades('well', 5);
	$s->settled_is('well', 5);
	status_says(qr/^ok$/);
	explain_says('well-1', qr/whose row says SETTLED.*It was settled at .* as [0-9a-f-]{36}/s, qr/Nothing more happens/);
	is(ask("SELECT component, status, detail FROM settlement.doctor() WHERE status <> 'ok'"), '', 'doctor() finds nothing');
	says("SELECT component FROM settlement.doctor()", qr/\b$_\b/, "... and has looked at: $_")
		for qw(library version wallet_url wallet clock launcher workers sending identity dlq unknown unapplied queue);
	status_fits();
};

scenario paused_symbol => sub {
	$s->sql("SELECT settlement.pause('wrong prices', 'SOL-USDT')");
	is($s->sql('SELECT acknowledged FROM settlement.wait_paused()'), 't', 'every worker acknowledges');
	$s->trade('aside', symbol => 'SOL-USDT');
	status_says(qr/^ok, 1 paused$/);
	explain_says('aside', qr/symbol SOL-USDT is paused by \w+ since .*, without an end: wrong prices/, qr/SELECT settlement\.resume\('SOL-USDT'\)/);
	says("SELECT settlement.explain('aside')", qr/put aside by a pause of its symbol.*goes back to the queue when the pause ends/s, '... and where it is');
	my $hint = doctor_says('pauses', 'warn', qr/SOL-USDT is paused by .*wrong prices/, qr/settlement\.resume\('SOL-USDT'\)/);
	is(ask("SELECT string_agg(what, ', ' ORDER BY at) FROM settlement.timeline('aside')"), 'pause of SOL-USDT, enqueued', 'its timeline');
	status_fits();
	follow($hint);
	$s->settled_is('aside', 1);
};

scenario paused_all => sub {
	$s->sql("SELECT settlement.pause('maintenance', until => now() + interval '1 hour')");
	is($s->sql('SELECT acknowledged FROM settlement.wait_paused()'), 't', 'every worker acknowledges');
	$s->trade('night');
	status_says(qr/^paused$/);
	explain_says('night', qr/Everything is paused by \w+ since .*, until .* \(in \d+ min\): maintenance/, qr/SELECT settlement\.resume\(\)/);
	my $hint = doctor_says('sending', 'warn', qr/Everything is paused/, qr/SELECT settlement\.resume\(\)/);
	status_fits();
	follow($hint);
	$s->settled_is('night', 1);
	says("SELECT string_agg(what, ',' ORDER BY at) FROM settlement.timeline('night')", qr/settled/, 'its timeline');
};

scenario breaker_open => sub {
	$s->sql("SELECT settlement.breaker_open('the wallet asked for it')");
	$s->trade('shut');
	status_says(qr/^breaker open$/);
	explain_says('shut', qr/circuit breaker was opened by hand at/, qr/SELECT settlement\.breaker_close\(\)/);
	my $hint = doctor_says('sending', 'warn', qr/opened by hand/, qr/settlement\.breaker_close\(\)/);
	says("SELECT what, details FROM settlement.timeline('shut')", qr/^enqueued/, 'its timeline begins');
	status_fits();
	follow($hint);
	$s->settled_is('shut', 1);
};

scenario wallet_down => sub {
	$s->stop_wallet;
	$s->trades('down', 20);
	status_says(qr/^breaker: network$/);
	explain_says('down-20', qr/circuit breaker is (open|half open) because the wallet fails since .* ago\): network/, qr/See that the wallet runs.*go on by themselves/);
	doctor_says('wallet', 'fail', qr/asked just now, it did not answer: network/, qr/See that the wallet runs, and that this host reaches it/);
	doctor_says('sending', 'fail', qr/because the wallet fails since .* ago\): network/, qr/See that the wallet runs/);
	status_fits();
	$s->start_wallet;
	$s->settled_is('down', 20);
	status_says(qr/^ok$/);
};

scenario wallet_401 => sub {
	$s->faults(map { { match => { path => $_ }, action => 'status', status => 401 } } qw(settle lookup));
	$s->trades('refused', 5);
	status_says(qr/^breaker: auth$/);
	explain_says('refused-5', qr/because the wallet fails since .* ago\): wallet_auth, HTTP 401/, qr/Put credentials that the wallet accepts into the file that settlement\.wallet_auth_file names/);
	doctor_says('sending', 'fail', qr/wallet_auth, HTTP 401/, qr/settlement\.wallet_auth_file/);
	doctor_says('wallet', 'fail', qr/it answered: wallet_auth, HTTP 401/, qr/settlement\.wallet_auth_file/);
	status_fits();
	$s->faults;
	$s->settled_is('refused', 5);
	status_says(qr/^ok$/);
};

scenario rate_limited => sub {
	$s->set(rate_limit => 1);
	$s->trades('limited', 60);
	status_says(qr/^rate limited$/);
	explain_says('limited-60', qr/settlement\.rate_limit is reached: 1 requests a second/, qr/Raise settlement\.rate_limit.*Next, a worker claims it/s);
	doctor_says('sending', 'warn', qr/settlement\.rate_limit is reached/, qr/Raise settlement\.rate_limit/);
	status_fits();
	$s->reset('rate_limit');
	$s->settled_is('limited', 60);

	$s->faults({ match => { times => 1 }, action => 'status', status => 429, retry_after => 10 });
	$s->trades('too-many', 3);
	status_says(qr/^rate limited$/);
	explain_says('too-many-3', qr/The wallet wants fewer requests: none is sent before .*rate_limited, HTTP 429/, qr/settlement\.rate_limit.*adaptive_concurrency/);
	doctor_says('sending', 'warn', qr/wants fewer requests/, qr/settlement\.rate_limit/);
	$s->faults;
	$s->settled_is('too-many', 3, 'it goes on by itself');
};

scenario fenced_clone => sub {
	$s->sql("SELECT settlement.pause('so that something waits')");
	$s->trade('original');
	$s->sql('CREATE DATABASE clone TEMPLATE postgres');
	$s->sql('SELECT settlement.resume()');
	$s->settled_is('original', 1);
	$database = 'clone';
	ask("SELECT settlement.resume()");
	status_says(qr/^fenced$/);
	explain_says('original', qr/Nothing is sent: this database is not known to be the one that may send/, qr/SELECT settlement\.adopt\(/);
	doctor_says('identity', 'fail', qr/this database must not send/, qr/SELECT settlement\.adopt\(/);
	doctor_says('sending', 'fail', qr/not known to be the one that may send/, qr/SELECT settlement\.adopt\(/);
	status_fits();
	$database = 'postgres';
	$s->sql('DROP DATABASE clone');
};

scenario no_workers => sub {
	$s->sql('ALTER DATABASE postgres SET settlement.workers = 0');
	$s->sql('SELECT settlement._notify_launcher()');
	status_says(qr/^no workers$/);
	$s->trade('alone');
	explain_says('alone', qr/No worker runs for this database \(0 wanted\)/, qr/See settlement\.workers and settlement\.databases/);
	doctor_says('workers', 'fail', qr/0 of 0 run/, qr/See settlement\.workers and settlement\.databases/);
	doctor_says('sending', 'fail', qr/No worker runs/, qr/settlement\.workers/);
	status_fits();
	$s->sql('ALTER DATABASE postgres RESET settlement.workers');
	$s->sql('SELECT settlement._notify_launcher()');
	$s->settled_is('alone', 1);
};

scenario dlq_with_four_classes => sub {
	$s->faults({ match => { trade_id => 'unreserved' }, action => 'status', status => 422,
		body => { success => \0, code => 'RESERVATION_NOT_FOUND', message => 'no such reservation' } });
	$s->trade('broke', buyer => 'poor', symbol => 'BTC/USDT');
	$s->trade('stranger', buyer => 'nobody');
	$s->trade('odd', symbol => 'NOSEPARATOR');
	$s->trade('unreserved');
	says('SELECT dlq FROM settlement.status', qr/^4$/, 'status counts them');
	is(ask('SELECT class, code, http_status, trades FROM settlement.dlq_summary ORDER BY class'),
		"insufficient_balance|INSUFFICIENT_BALANCE|422|1\ninvalid_trade|||1\nreservation_not_found|RESERVATION_NOT_FOUND|422|1\nuser_not_found|USER_NOT_FOUND|422|1",
		'dlq_summary names the four classes');
	explain_says('broke', qr/It is dead \(in the DLQ\) since .* after 1 request: insufficient_balance, INSUFFICIENT_BALANCE, HTTP 422/, qr/When the cause is mended, settlement\.redrive\('broke', \.\.\.\)/);
	explain_says('stranger', qr/user_not_found, USER_NOT_FOUND/, qr/settlement\.redrive\('stranger'/);
	explain_says('unreserved', qr/reservation_not_found, RESERVATION_NOT_FOUND, HTTP 422: no such reservation/, qr/settlement\.redrive\('unreserved'/);
	explain_says('odd', qr/after 0 requests: invalid_trade/, qr/Correct the trade row and settlement\.redrive\('odd'/);
	my $hint = doctor_says('dlq', 'warn', qr/dead letters: 4 \(1 insufficient_balance, 1 invalid_trade, 1 reservation_not_found, 1 user_not_found\)/,
		qr/settlement\.dlq_summary.*redrive_where\(class => 'insufficient_balance'\)/);
	like(follow($hint), qr/^insufficient_balance\|INSUFFICIENT_BALANCE\|FAILED\|1\|/, '... which says first what it would do');
	status_fits();
	$s->faults;
	$s->sql("SELECT * FROM settlement.dlq_purge(all_rows => true, dry_run => false, reason => 'seen')");
	is(ask('SELECT dlq FROM settlement.status'), 0, 'purged: none is left');
	is(ask('SELECT count(*) FROM settlement.dlq_summary'), 0, '... nor in the summary');
};

scenario unknown_outcomes => sub {
	$s->faults({ match => { trade_id_prefix => 'lost' }, action => 'close' });
	$s->trade('lost-1', symbol => 'BTC/USDT', price => 1000, quantity => 2);
	$s->trade('lost-2', symbol => 'ETH_BTC', price => 0.5, quantity => 1);
	my $n = 0;
	wait_for(sub { $s->trade('other-' . ++$n); $s->sql("SELECT count(*) = 2 FROM settlement.dlq WHERE status = 'UNKNOWN'") eq 't' }, 'two to die as UNKNOWN');
	says('SELECT unknown FROM settlement.status', qr/^2 0\.5 BTC\+1$/, 'status names how many, and what is at stake');
	explain_says('lost-1', qr/It is dead .*network.*The wallet may have moved its money/s, qr/settlement\.lookup\('lost-1'\) asks the wallet/);
	doctor_says('unknown', 'fail', qr/may have moved the money: 2, of them dead: 2; value at risk: 0\.5 BTC, 2000 USDT/, qr/settlement\.resolve_where\(\) asks the wallet/);
	status_fits();

	my $evidence = ask("SELECT e -> 'request' ->> 'body', e -> 'request' ->> 'sha256' = e -> 'request' ->> 'sha256_when_first_sent', "
		. "jsonb_array_length(e -> 'replies'), e ->> 'idempotency_key' FROM settlement.evidence('lost-1') e");
	like($evidence, qr/^\{"trade_id":"lost-1",.*"quote_amount":"2000".*\}\|t\|\d+\|[0-9a-f-]{36}$/, 'evidence() has the bytes that were sent, and the replies');
	$s->faults;
	$s->sql("SELECT * FROM settlement.resolve_where(all_rows => true, dry_run => false, reason => 'ask')");
	$s->settled_is('lost', 2);
	says('SELECT unknown FROM settlement.status', qr/^0$/, 'nothing is unknown any more');
	is(ask("SELECT e -> 'request' ->> 'made_from', e -> 'trade_row' ->> 'status', e -> 'acts' -> 0 ->> 'act' FROM settlement.evidence('lost-1') e"),
		'the trade row as it is now|SETTLED|lookup', 'evidence() of a settled trade says where it is from');
	is(ask("SELECT e -> 'request' ->> 'body', e ->> 'idempotency_key' FROM settlement.evidence('lost-1') e"),
		join('|', (split /\|/, $evidence)[0, 3]), '... and has the same bytes and the same key');
};

scenario unapplied_rows => sub {
	$s->sql(<<'SQL');
CREATE FUNCTION public.refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.trade_id = 'stuck' THEN RAISE EXCEPTION 'trade is under investigation'; END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER refuse BEFORE UPDATE ON public.trades FOR EACH ROW EXECUTE FUNCTION public.refuse();
SQL
	$s->trade('stuck');
	says('SELECT unapplied FROM settlement.status', qr/^1$/, 'status counts it');
	explain_says('stuck', qr/The outcome SETTLED \(.*\) is recorded since .*failed \d+ times, last with "trade is under investigation"/, qr/next try at .*Nothing is sent again/);
	doctor_says('unapplied', 'fail', qr/not written to their trade rows yet: 1.*under investigation/, qr/Remove what keeps the trade rows from being written/);
	status_fits();
	$s->sql('DROP TRIGGER refuse ON public.trades');
	$s->status_is('stuck', 'SETTLED');
};

# After a restart, which forgets the fast answers of the last minute.
scenario wallet_slow => sub {
	$s->node->stop('immediate');
	$s->node->start;
	$s->faults({ match => { trade_id_prefix => 'late' }, action => 'pass', delay_ms => 20_000 },
		{ match => { trade_id_prefix => 'slow' }, action => 'pass', delay_ms => 1500 });
	$s->trades('slow', 120);
	$s->trade('late');
	status_says(qr/^wallet slow$/);
	explain_says('late', qr/It is in flight: worker \d+ claimed it at .* and has sent the request.*The wallet is slow: half of its \d+ answers of the last minute took [\d.]+ s or more/s,
		qr/recorded as soon as the wallet answers or settlement\.request_timeout \(30s\) is over.*see what slows it/s);
	doctor_says('sending', 'warn', qr/The wallet is slow: half of its \d+ answers/, qr/see what slows it/);
	says("SELECT phase, waits_for FROM settlement.in_flight WHERE trade_id = 'late'", qr/^waiting\|wallet$/, 'in_flight says what it waits for');
	says('SELECT p50_p99 FROM settlement.status', qr{^1\.\d/\d[\d.]*s$}, 'status has the pace');
	status_fits();
	$s->faults;
	$s->settled_is('slow', 120);
	$s->status_is('late', 'SETTLED');
};

$s->at_rest;
$s->ledgers_are_equal;
done_testing();

package Calm;

# After the storm: undo everything, let the trades come to rest, and ask the
# wallet about those of which the outcome is not known.

use strict;
use warnings;
use JSON::PP ();

use Tables;
use Time::HiRes qw(time sleep);

sub heal
{
	my ($arena) = @_;
	$arena->finish_all;
	$arena->insist(sub { $arena->set_rules() });
	$arena->{proxy}->set(mode => 'pass');
	$arena->insist(sub {
		for my $setting (qw(workers concurrency request_timeout connect_timeout max_attempts retry_initial_backoff
			retry_max_backoff poll_interval shutdown_timeout breaker_failures breaker_max_open apply_timeout attempt_history
			pending_timeout max_response_size rate_limit enabled))
		{
			$arena->ask("ALTER SYSTEM RESET settlement.$setting");
		}
		$arena->ask('SELECT pg_reload_conf()');
		$arena->ask(q{SELECT settlement.resume() FROM settlement.pauses WHERE symbol = '*'});
		$arena->ask('SELECT settlement.resume(symbol) FROM settlement.pauses');
		$arena->ask('SELECT settlement.breaker_close()');
	});
	hurry($arena);
	# workers that leave for the new settings let others read the whole queue again
	$arena->idle(1.5);
	$arena->log('finished ' . finish_prepared($arena) . ' prepared transactions');
}

# An outcome that a worker was writing when it was killed waits for minutes, as
# it may have been the cause.  Only a start makes the workers look again.
sub hurry
{
	my ($arena) = @_;
	$arena->ask('UPDATE settlement.unapplied SET next_apply_at = now(), failures = 0') > 0 or return;
	$arena->stop_server($arena->{node}, 'fast');
	$arena->start_server($arena->{node});
	$arena->wait_connect(30);
}

# Half of them are committed: they were neither acknowledged nor rolled back.
sub finish_prepared
{
	my ($arena) = @_;
	my $all = $arena->session->selectcol_arrayref('SELECT gid FROM pg_prepared_xacts ORDER BY gid');
	my $n = 0;
	$arena->ask((++$n % 2 ? 'COMMIT' : 'ROLLBACK') . " PREPARED '$_'") for @$all;
	return $n;
}

my $waiting = q{SELECT (SELECT count(*) FROM settlement.queue) + (SELECT count(*) FROM settlement.deferred) + (SELECT count(*) FROM settlement.unapplied)};
my $unknown = q{SELECT count(*) FROM settlement.dlq WHERE status = 'UNKNOWN'};

# The workers do not ask about a trade whose row is gone: an operator reads on.
sub resolve_by_the_books
{
	my ($arena) = @_;
	my $keys = $arena->ask(q{SELECT string_agg(settlement._idempotency_key(a.source, d.trade_id, d.generation)::text, ' ')
		FROM settlement.dlq d JOIN settlement.attached a USING (attached_id) WHERE d.status = 'UNKNOWN'}) // '';
	my @lines;
	for my $key (split ' ', $keys)
	{
		my $reply = $arena->{wallet}->get("/api/wallets/settlements/$key");
		my $answer = $reply->{json} // {};
		push @lines, { key => $key, outcome => 'SETTLED', reference => $answer->{settlement_id} } if $reply->{status} == 200 && $answer->{settlement_id};
		push @lines, { key => $key, outcome => 'FAILED', reference => 'not in the ledger' } if $reply->{status} == 404 && ($answer->{code} // '') eq 'UNKNOWN_KEY';
	}
	$arena->ask(q{SELECT sum(resolved) FROM settlement.resolve_where(statement => ?::jsonb, dry_run => false, reason => 'by the books')},
		JSON::PP::encode_json(\@lines)) if @lines;
}

# What the wallet does not know is not sent again where the row is gone: it is asked
# about for ever, until an operator closes the books.
sub resolve_forgotten
{
	my ($arena) = @_;
	my $trades = eval { $arena->session->selectall_arrayref(<<'SQL', { Slice => {} }) } // [];
SELECT d.trade_id, settlement._idempotency_key(a.source, d.trade_id, d.generation)::text AS key
FROM settlement.deferred d JOIN settlement.attached a USING (attached_id)
WHERE d.reason = 'needs_lookup' AND d.last_class = 'unknown_key' AND d.first_sent_at = '-infinity'
SQL
	for my $trade (@$trades)
	{
		my $reply = $arena->{wallet}->get("/api/wallets/settlements/$trade->{key}");
		$arena->try(q{SELECT settlement.resolve(?, 'FAILED', 'not in the ledger', 'by the books')}, $trade->{trade_id})
			if $reply->{status} == 404 && ($reply->{json}{code} // '') eq 'UNKNOWN_KEY';
	}
}

# Wait until nothing waits; then look up what is unknown, and once more.  False
# when the deadline passes first.
sub drain
{
	my ($arena, $deadline) = @_;
	for (;;)
	{
		until (($arena->try($waiting) // 1) == 0)
		{
			return 0 if time > $deadline;
			resolve_forgotten($arena);
			sleep 0.2;
		}
		return 1 if $arena->ask($unknown) == 0;
		my $asked = $arena->ask(q{SELECT sum(resolved) FROM settlement.resolve_where(all_rows => true, dry_run => false, reason => 'the end')});
		resolve_by_the_books($arena) unless $asked;
		return 0 if time > $deadline;
		sleep 0.2;
	}
}

sub state_of
{
	my ($arena) = @_;
	return join "\n", grep { $_ ne '' } map { eval { $arena->ask($_) } // $@ }
		q{SELECT 'status ' || s::text FROM settlement.status s},
		q{SELECT 'doctor ' || string_agg(concat_ws(' ', component, status, detail), '; ') FROM settlement.doctor() d WHERE d.status <> 'ok'},
		q{SELECT 'workers ' || string_agg(w::text, ' ') FROM settlement.workers w},
		q{SELECT 'deferred ' || string_agg(concat_ws(' ', n, reason, last_class, last_message, next), '; ') FROM
			(SELECT count(*) AS n, reason, last_class, max(last_message) AS last_message, min(retry_at) AS next FROM settlement.deferred GROUP BY 2, 3) d},
		q{SELECT 'unapplied ' || string_agg(concat_ws(' ', trade_id, leaf, status, failures, last_failure), '; ') FROM (SELECT * FROM settlement.unapplied LIMIT 5) u};
}

1;

#!/usr/bin/perl
# What the server log says of trades, how much of it, and that nobody else can
# write into it.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib";
use ServerLog;
use Settlement;
use Test::More;

my $version = `postgres --version` =~ /(\d+)/ ? $1 : 0;
plan skip_all => 'log_destination = jsonlog is of PostgreSQL 15' if $version < 15;

my $s = Settlement->start(conf => <<'CONF');
logging_collector = on
log_destination = 'stderr,jsonlog'
log_line_prefix = '%e '
settlement.workers = 2
settlement.retry_initial_backoff = '20ms'
settlement.retry_max_backoff = '50ms'
settlement.breaker_failures = 1000000
settlement.breaker_suspects = 1000000
CONF
my $log = ServerLog->new($s->node);

# The one line of that kind about a trade.
sub line_of
{
	my ($state, $trade) = @_;
	my @lines;
	wait_for(sub { @lines = $log->of_trade($state, $trade) }, "a line $state about $trade");
	is(scalar @lines, 1, "one line $state about $trade");
	return $lines[0];
}

sub has_fields
{
	my ($line, %expected) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is_deeply({ map { ($_ => $line->{fields}{$_}) } keys %expected }, \%expected, 'its fields');
}

# Nothing is under way that could still be logged: the line comes after the commit.
sub mark
{
	my ($name) = @_;
	$s->sql("SELECT settlement.pause('$name', '$name'); SELECT settlement.resume('$name')");
	wait_for(sub { grep { ($_->{fields}{reason} // '') eq $name } $log->lines('ST031') }, "the mark $name");
}

scenario settled => sub {
	$s->trade('silent');
	$s->status_is('silent', 'SETTLED');
	$s->set(log_settlements => 'all');
	$s->trade('told', symbol => 'BTC/USDT', buyer => 'u1', seller => 'u2', price => '100', quantity => '0.5', buyer_fee => '0.1', seller_fee => '0.2');
	$s->status_is('told', 'SETTLED');
	my $line = line_of('ST001', 'told');
	is($line->{message}, 'trade "told" settled', 'the message');
	is($line->{error_severity}, 'LOG', 'at level LOG');
	has_fields($line, status => 'SETTLED', symbol => 'BTC/USDT', buyer => 'u1', seller => 'u2', price => '100', quantity => '0.5',
		quote_amount => '50', buyer_fee => '0.1', seller_fee => '0.2', attempt => 1, verb => 'settle',
		settlement_id => $s->sql("SELECT settlement_id FROM trades WHERE trade_id = 'told'"));
	like($line->{fields}{duration_ms}, qr/^\d+\.\d{3}$/, 'the duration');
	is(scalar($log->of_trade('ST001', 'silent')), 0, 'nothing of successes by default');

	$s->set(log_sample_rate => 0);
	$s->trades('unsampled', 20);
	$s->settled_is('unsampled', 20);
	$s->set(log_sample_rate => 0.5);
	$s->trades('sampled', 200);
	$s->settled_is('sampled', 200);
	wait_for(sub { grep { $_->{fields}{trade_id} =~ /^sampled-/ } $log->lines('ST001') }, 'a sample');
	mark('sampled');
	my @ids = map { $_->{fields}{trade_id} } $log->lines('ST001');
	is(scalar(grep { /^unsampled-/ } @ids), 0, 'a rate of zero');
	my $n = grep { /^sampled-/ } @ids;
	ok($n > 50 && $n < 150, 'about half of them') or diag($n);
	$s->reset('log_settlements', 'log_sample_rate');
};

scenario failed => sub {
	$s->trade('refused', buyer => 'poor', symbol => 'BTC/USDT');
	$s->dead_letter_is('refused', 'FAILED insufficient_balance INSUFFICIENT_BALANCE 1');
	my $line = line_of('ST002', 'refused');
	is($line->{message}, 'trade "refused" failed: insufficient_balance', 'the message ends with the class');
	has_fields($line, status => 'FAILED', class => 'insufficient_balance', code => 'INSUFFICIENT_BALANCE', buyer => 'poor', attempt => 1);

	$s->trade('malformed', price => '0');
	$s->status_is('malformed', 'FAILED');
	$line = line_of('ST002', 'malformed');
	is($line->{message}, 'trade "malformed" failed: not sent', 'one that was never sent');
	has_fields($line, message => 'price is not greater than zero', attempt => 0);

	# charged since others are answered meanwhile; on a slow machine some attempts are not
	$s->set(log_attempts => 1000);
	$s->faults({ match => { trade_id => 'lost' }, action => 'status', status => 500 });
	$s->trade('lost', symbol => 'BTC/USDT', buyer => 'u1');
	wait_for(sub { $s->trade('other-' . int(rand 1e9)); $s->sql("SELECT count(*) FROM settlement.dlq WHERE trade_id = 'lost'") },
		'the end of its attempts');
	$line = line_of('ST003', 'lost');
	is($line->{message}, 'outcome of trade "lost" is unknown: wallet_error', 'the message says that it is not FAILED');
	has_fields($line, status => 'UNKNOWN', class => 'wallet_error', http_status => 500, symbol => 'BTC/USDT', buyer => 'u1');
	my @attempts = grep { $_->{message} eq 'attempt for trade "lost" failed: wallet_error' } $log->of_trade('ST004', 'lost');
	is(scalar @attempts, $line->{fields}{attempt}, 'each attempt had its line');
	$s->reset('log_attempts');
	has_fields($attempts[0], status => 'PENDING', attempt => 1, maybe_executed => 'true', reason => 'retry');
	my %spans = map { ($_->{fields}{span_id} => 1) } @attempts;
	is(scalar keys %spans, scalar @attempts, 'and its span');
	$s->faults();
};

scenario nobody_forges_a_line => sub {
	my $evil = qq(no\n00000 LOG:  trade "x" settled" status=SETTLED\r\n\x1b[2J\\ \x{202e}end);
	my $id = qq(id" status="SETTLED\nLOG:  forged);
	$s->faults({ match => { trade_id => $id }, action => 'status', status => 422,
		body => { code => 'INVALID_REQUEST', message => $evil } });
	(my $quoted = $id) =~ s/\n/\\n/;
	$s->engine("SELECT public.put(E'$quoted')");
	wait_for(sub { $s->sql("SELECT count(*) FROM settlement.dlq WHERE trade_id = E'$quoted'") }, 'the dead letter');
	my $line = line_of('ST002', $id);
	has_fields($line, status => 'FAILED', class => 'invalid_request', code => 'INVALID_REQUEST');
	is($line->{fields}{message}, qq(no 00000 LOG:  trade "x" settled" status=SETTLED   [2J\\ \x{202e}end), 'the text comes out whole, without controls');
	unlike($line->{$_}, qr/[\x00-\x1f\x7f\x{202e}]/, "and $_ is one line") for qw(message detail);
	my ($file) = glob($s->node->data_dir . '/log/*.log');
	my $text = PostgreSQL::Test::Utils::slurp_file($file);
	unlike($text, qr/^(00000 LOG:  trade|LOG:  forged)/m, 'nor does a line of the plain log begin with it');
	$s->faults();
};

# A wallet that says what it was told.
scenario no_secret_and_no_book => sub {
	my $file = $s->node->basedir . '/secret';
	PostgreSQL::Test::Utils::append_to_file($file, "Bearer very-secret-token\n");
	chmod 0600, $file;
	$s->set(wallet_auth_file => $file);
	$s->faults({ match => { trade_id => 'talkative' }, action => 'status', status => 422,
		body => { code => 'INVALID_REQUEST', message => 'you said Bearer very-secret-token ' . 'x' x 30000 } });
	$s->trade('talkative');
	wait_for(sub { $s->sql("SELECT count(*) FROM settlement.dlq WHERE trade_id = 'talkative'") }, 'the dead letter');
	my $line = line_of('ST002', 'talkative');
	cmp_ok(length $line->{detail}, '<', 2000, 'the reply is cut');
	for my $file (glob($s->node->data_dir . '/log/*'))
	{
		unlike(PostgreSQL::Test::Utils::slurp_file($file), qr/very-secret-token/, 'the secret is in no log');
	}
	$s->reset('wallet_auth_file');
	$s->faults();
};

# More lines than a minute may have, and each failure counted in one of them.
scenario an_outage_is_summed_up => sub {
	$s->set(log_attempts => 2);
	my $known = sub { $s->sql("SELECT count(*) FROM settlement.attempts WHERE trade_id LIKE 'outage-%'") };
	$s->faults({ match => { trade_id_prefix => 'outage-' }, action => 'status', status => 503 });
	$s->trades('outage', 50);
	wait_for(sub { $known->() > 500 }, 'many failures');
	$s->faults();
	$s->settled_is('outage', 50);
	my $failures = $known->();
	$s->node->restart;
	$s->wait_for_workers(2);
	my @lines = grep { $_->{fields}{trade_id} =~ /^outage-/ } $log->lines('ST004');
	my @sums = grep { $_->{fields}{class} eq 'wallet_error' } $log->lines('ST005');
	my $held_back = 0;
	$held_back += $_->{fields}{count} for @sums;
	cmp_ok(scalar @lines, '<', 100, 'a few lines') or diag($failures);
	is(@lines + $held_back, $failures, 'and all failures in them and the summaries');
	like($sums[0]{message}, qr/^\d+ more failures of class "wallet_error" were not written to the log$/, 'a summary');
	$s->reset('log_attempts');
};

scenario a_row_that_cannot_be_written => sub {
	$s->sql(<<'SQL');
CREATE FUNCTION public.refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM public.allowed) THEN
        RAISE E'not yet\nLOG:  forged" status=SETTLED';
    END IF;
    RETURN new;
END $$;
CREATE TABLE public.allowed (yes boolean);
GRANT SELECT ON public.allowed TO exchange;
CREATE TRIGGER refuse BEFORE UPDATE ON public.trades FOR EACH ROW WHEN (new.trade_id = 'unwritten') EXECUTE FUNCTION public.refuse();
SQL
	$s->trade('unwritten');
	my $line = line_of('ST011', 'unwritten');
	is($line->{message}, 'could not write outcome SETTLED of trade "unwritten" to its row', 'the message');
	has_fields($line, status => 'SETTLED', table => 'trades', failures => 1);
	is($line->{fields}{message}, qq(not yet\nLOG:  forged" status=SETTLED), 'and why');
	unlike($line->{detail}, qr/\n/, 'on one line');
	$s->sql('INSERT INTO public.allowed VALUES (true)');
	$s->status_is('unwritten', 'SETTLED');
	is(line_of('ST012', 'unwritten')->{message}, 'outcome SETTLED of trade "unwritten" is written to its row after all', 'when it is');
};

scenario the_whole => sub {
	$s->set(breaker_failures => 5);
	$s->faults({ match => { trade_id_prefix => 'broken-' }, action => 'status', status => 500 });
	$s->trades('broken', 10);
	wait_for(sub { $log->lines('ST021') }, 'the breaker to open');
	my ($line) = $log->lines('ST021');
	is($line->{message}, 'settlement circuit breaker opened: wallet_error', 'why it opened');
	has_fields($line, class => 'wallet_error', http_status => 500);
	$s->faults();
	$s->settled_is('broken', 10);
	wait_for(sub { $log->lines('ST022') }, 'the breaker to close');
	$s->set(enabled => 'off');
	wait_for(sub { grep { $_->{message} eq 'settlement sends nothing: disabled' } $log->lines('ST024') }, 'disabled');
	$s->reset('enabled', 'breaker_failures');
	wait_for(sub { $log->lines('ST023') > 1 }, 'enabled');
};

scenario acts => sub {
	$s->sql("SELECT settlement.redrive('refused', E'paid\nin')");
	my ($line) = grep { $_->{fields}{act} eq 'redrive' } $log->of_trade('ST031', 'refused');
	is($line->{message}, 'settlement act: redrive', 'an act of an operator');
	has_fields($line, count => 1, reason => "paid\nin", role => $s->sql('SELECT session_user'));
};

$s->set(log_settlements => 'none');
scenario none => sub {
	$s->trade('unsaid', buyer => 'poor');
	wait_for(sub { $s->sql("SELECT count(*) FROM settlement.dlq WHERE trade_id = 'unsaid'") }, 'the dead letter');
	mark('unsaid');
	is(scalar(grep { $log->of_trade($_, 'unsaid') } qw(ST001 ST002 ST003 ST004)), 0, 'nothing of single trades');
};

done_testing();

#!/usr/bin/perl
# The W3C trace context of a trade: where its id comes from, that it stays the
# same wherever the trade goes, and that nothing in its column can hold a trade up.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib";
use JSON::PP ();
use PostgreSQL::Test::Utils;
use Settlement;
use Test::More;

my $requests = PostgreSQL::Test::Utils::tempdir() . '/requests';
my $s = Settlement->start(wallet => [ '--log', $requests ], conf => <<'CONF');
settlement.retry_initial_backoff = '20ms'
settlement.idempotency_window = '1d'
CONF
$s->sql(<<'SQL');
CREATE TABLE public.traced (LIKE public.trades INCLUDING INDEXES);
ALTER TABLE public.traced ADD COLUMN context text;
ALTER TABLE public.traced OWNER TO exchange;
GRANT INSERT ON public.traced TO engine;
SELECT settlement.attach('public.traced', '{"traceparent": "context"}');
SQL
my $columns = join ', ', qw(trade_id symbol buy_order_id sell_order_id buyer_user_id seller_user_id price quantity buyer_fee
	seller_fee executed_at settlement_status settlement_id settled_at settlement_attempts settlement_error);
$s->witness_trades("SELECT $columns FROM public.trades UNION ALL SELECT $columns FROM public.traced");

sub put_traced
{
	my ($id, $context, %columns) = @_;
	my %row = (symbol => 'BTC/USDT', buy_order_id => 'b', sell_order_id => 's', buyer_user_id => 'u1', seller_user_id => 'u2',
		price => 100, quantity => 1, buyer_fee => 0, seller_fee => 0, %columns);
	my @names = sort keys %row;
	$s->engine('INSERT INTO traced (trade_id, context, ' . join(', ', @names) . ", executed_at) VALUES ('$id', " .
		(defined $context ? "E'$context'" : 'NULL') . ', ' . join(', ', map { "'$row{$_}'" } @names) . ', now())');
}

# What the wallet has logged of the requests of a trade, as [key, trace, span, flags].
sub sent
{
	my ($trade) = @_;
	my @sent;
	for (split /\n/, slurp_file($requests))
	{
		my $line = eval { JSON::PP::decode_json($_) } or next;
		next if ($line->{trade_id} // '') ne $trade;
		push @sent, [ $line->{key}, ($line->{traceparent} // '') =~ /^00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})$/ ];
	}
	return @sent;
}

sub requests_become
{
	my ($trade, $n) = @_;
	wait_for(sub { sent($trade) >= $n }, "$n requests of $trade");
	return sent($trade);
}

my $trace = '4bf92f3577b34da6a3ce929d0e0e4736';
my $given = "00-$trace-00f067aa0ba902b7-01";

scenario made_from_the_key => sub {
	$s->trade('plain');
	$s->status_is('plain', 'SETTLED');
	my ($request) = requests_become('plain', 1);
	my ($key, $id, $span, $flags) = @$request;
	is($id, $key =~ s/-//gr, 'without a column the trace id is the key');
	isnt($span, '0' x 16, 'the span is one');
	is($flags, '01', 'and the wallet is asked to record it');
	is($s->sql("SELECT count(*) FROM settlement.explain('plain') e WHERE e LIKE '%$id%'"), 0, 'nothing to say when it has settled');
};

scenario taken_from_the_row => sub {
	my %given = (traceparent => $given, uuid => '4bf92f35-77b3-4da6-a3ce-929d0e0e4736', digits => uc $trace);
	for my $form (sort keys %given)
	{
		put_traced("from-$form", $given{$form});
		$s->status_is("from-$form", 'SETTLED');
		my ($request) = requests_become("from-$form", 1);
		is($request->[1], $trace, "a trace id as $form");
		isnt($request->[2], '00f067aa0ba902b7', 'the span is our own');
	}
};

scenario no_trace_id_in_the_column => sub {
	my %none = (nothing => undef, empty => '', short => 'abc', zero => '0' x 32, long => 'f' x 5000, letters => 'g' x 32,
		injected => "$trace\\r\\nX-Evil: 1", version => "ff-$trace-00f067aa0ba902b7-01");
	put_traced("none-$_", $none{$_}) for sort keys %none;
	for my $name (sort keys %none)
	{
		$s->status_is("none-$name", 'SETTLED');
		my ($request) = requests_become("none-$name", 1);
		is($request->[1], $request->[0] =~ s/-//gr, "$name: a fresh one");
	}
	$s->sql('ALTER TABLE traced RENAME context TO elsewhere');
	$s->engine("INSERT INTO traced (trade_id, symbol, buy_order_id, sell_order_id, buyer_user_id, seller_user_id, price, quantity, executed_at)
		VALUES ('none-column', 'BTC/USDT', 'b', 's', 'u1', 'u2', 1, 1, now())");
	$s->status_is('none-column', 'SETTLED', 'nor does a column matter that is gone');
	$s->sql('ALTER TABLE traced RENAME elsewhere TO context');
};

# Queue, deferred, dlq, queue, under a second key.
scenario it_stays_with_the_trade => sub {
	$s->faults({ match => { trade_id_prefix => 'kept', times => 4 }, action => 'status', status => 503 });
	put_traced('kept', $given, buyer_user_id => 'poor');
	put_traced('kept-own', undef, buyer_user_id => 'poor');
	for my $trade ('kept', 'kept-own')
	{
		$s->becomes("SELECT status FROM settlement.dlq WHERE trade_id = '$trade'", 'FAILED', "$trade is dead after some attempts");
		cmp_ok(scalar(requests_become($trade, 2)), '>', 1, 'and was sent more than once');
		is($s->sql("SELECT coalesce(trace_id, 'none') FROM settlement.dlq WHERE trade_id = '$trade'"),
			$trade eq 'kept' ? $trace : 'none', 'stored only where the row has one');
	}
	my ($first) = sent('kept-own');
	my $own = $first->[0] =~ s/-//gr;
	like($s->sql("SELECT string_agg(e, ' ') FROM settlement.explain('kept-own') e"), qr/trace id $own\./, 'explain() shows it');
	like($s->sql("SELECT string_agg(e, ' ') FROM settlement.explain('kept') e"), qr/trace id $trace\./, 'that of the row too');
	$s->wallet->fund(qw(poor USDT 1000));
	$s->sql("SELECT settlement.redrive(trade_id, 'paid in') FROM settlement.dlq");
	for my $trade ('kept', 'kept-own')
	{
		$s->status_is($trade, 'SETTLED');
		my @sent = sent($trade);
		my %keys = map { ($_->[0] => 1) } @sent;
		my %traces = map { ($_->[1] => 1) } @sent;
		my %spans = map { ($_->[2] => 1) } @sent;
		is(scalar keys %keys, 2, "$trade: two keys");
		is_deeply([ keys %traces ], [ $trade eq 'kept' ? $trace : $own ], 'one trace');
		is(scalar keys %spans, scalar @sent, 'a span for each request');
	}
	$s->ledgers_are_equal;
};

scenario it_waits_with_the_outcome => sub {
	$s->sql(q{CREATE FUNCTION public.refuse() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE ''not yet''; END';
		CREATE TRIGGER refuse BEFORE UPDATE ON traced FOR EACH ROW EXECUTE FUNCTION public.refuse()});
	put_traced('held-up', $given);
	put_traced('held-up-invalid', $given, price => 0);
	$s->becomes("SELECT string_agg(concat_ws(' ', trade_id, trace_id), ', ' ORDER BY trade_id) FROM settlement.unapplied WHERE failures > 0",
		"held-up $trace, held-up-invalid $trace", 'an outcome that cannot be written has it too');
	like($s->sql("SELECT string_agg(e, ' ') FROM settlement.explain('held-up') e"), qr/trace id $trace\./, 'and explain() shows it');
	$s->sql('DROP TRIGGER refuse ON traced');
	$s->status_is('held-up', 'SETTLED');
	$s->status_is('held-up-invalid', 'FAILED');
};

scenario not_sampled => sub {
	$s->set(trace_sampled => 'off');
	my $n = 0;
	wait_for(sub { $s->trade('quiet-' . ++$n); grep { ($_->[3] // '') eq '00' } map { sent("quiet-$_") } 1 .. $n }, 'a request that asks for no record');
	pass('the flag is off');
	$s->reset('trace_sampled');
};

done_testing();

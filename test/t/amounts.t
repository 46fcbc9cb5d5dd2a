#!/usr/bin/perl
# What is on the wire, to the last digit; and what the wallet's books make of it.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib";
use Settlement;
use RecordingWallet;
use JSON::PP ();
use Test::More;

my $s = Settlement->start;

# price, quantity, buyer's fee, seller's fee => as text: price, base, quote, fees
my %case = (
	plain => [ qw(50000 0.5 25 12.5), qw(50000 0.5 25000 25 12.5) ],
	trailing => [ qw(50000.00 1.500 0.10 0.0), qw(50000 1.5 75000 0.1 0) ],
	tiny => [ qw(0.00000001 0.00000001 0 0), qw(0.00000001 0.00000001 0.0000000000000001 0 0) ],
	large => [ qw(99999999.99999999 12345678.87654321 0 0), qw(99999999.99999999 12345678.87654321 1234567887654320.8765432112345679 0 0) ],
	exponent => [ qw(1e-7 1e3 0 0), qw(0.0000001 1000 0.0001 0 0) ],
	beyond_double => [ qw(0.1 0.2 0.01 0.003), qw(0.1 0.2 0.02 0.01 0.003) ],
	beyond_double_too => [ qw(9007199254740993 1 0 0), qw(9007199254740993 1 9007199254740993 0 0) ],
	round => [ qw(1000000 100 0 0), qw(1000000 100 100000000 0 0) ],
);

sub put
{
	my ($prefix) = @_;
	for my $name (sort keys %case)
	{
		my @c = @{ $case{$name} };
		$s->trade("$prefix-$name", symbol => 'BTC/USDT', buyer => 'rich', seller => 'richer', price => $c[0], quantity => $c[1],
			buyer_fee => $c[2], seller_fee => $c[3]);
	}
}

scenario amounts_in_the_ledger => sub {
	$s->wallet->fund(map { ($_, 'BTC', '99999999999', $_, 'USDT', '99999999999999999') } qw(rich richer));
	put('booked');
	$s->settled_is('booked', scalar keys %case);
	for my $name (sort keys %case)
	{
		my (undef, undef, undef, undef, undef, $base, $quote, $buyer_fee, $seller_fee) = @{ $case{$name} };
		my %booked = map { ("$_->{account} $_->{currency}" => $_->{amount}) } $s->wallet->ledger("?trade_id=booked-$name");
		is($booked{'rich BTC'}, $base, "$name: the buyer gets the quantity");
		is($booked{'richer BTC'}, "-$base", 'which the seller gives');
		is($s->sql("SELECT -($quote + $buyer_fee) = $booked{'rich USDT'} AND $quote - $seller_fee = $booked{'richer USDT'}"), 't',
			'price x quantity and the fees change hands');
	}
	$s->ledgers_are_equal;
};

my $wallet = RecordingWallet->start($s->node->basedir);

scenario amounts_on_the_wire => sub {
	$s->set(wallet_url => $wallet->url);
	# the workers have taken up the new address when one trade arrives there
	my $n = 0;
	wait_for(sub { $s->trade('probe-' . ++$n); scalar $wallet->requests }, 'requests at the other wallet');
	put('sent');
	$s->settled_is('sent', scalar keys %case);
	my %body = map { my $b = JSON::PP::decode_json($_->{body}); ($b->{trade_id} => $b) } $wallet->requests;
	for my $name (sort keys %case)
	{
		my (undef, undef, undef, undef, @expected) = @{ $case{$name} };
		is_deeply([ @{ $body{"sent-$name"} }{qw(price base_amount quote_amount buyer_fee seller_fee)} ], \@expected,
			"$name: decimal strings, without exponent and trailing zeros");
	}
	my ($raw) = grep { $_->{body} =~ /sent-plain/ } $wallet->requests;
	like($raw->{body}, qr/"price":\s*"50000"/, 'as JSON strings');
	is_deeply($body{'sent-plain'}, { trade_id => 'sent-plain', buyer_id => 'rich', seller_id => 'richer',
		buyer_order_id => 'bo-sent-plain-1', seller_order_id => 'so-sent-plain-1', base_currency => 'BTC', quote_currency => 'USDT',
		base_amount => '0.5', quote_amount => '25000', price => '50000', buyer_fee => '25', seller_fee => '12.5' },
		'the whole request is what the contract says');
};

scenario the_head_of_a_request => sub {
	my ($request) = grep { $_->{body} =~ /sent-plain/ } $wallet->requests;
	my %h = %{ $request->{headers} };
	is($request->{line}, 'POST /api/wallets/settle HTTP/1.1', 'the request line');
	is($h{'content-type'}, 'application/json', 'Content-Type');
	like($h{'idempotency-key'}, qr/^[0-9a-f]{8}-[0-9a-f]{4}-5[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/, 'the key is a UUIDv5');
	is($h{'settlement-epoch'}, $s->sql('SELECT epoch FROM settlement.identity'), 'the epoch is that of the database');
	like($h{traceparent}, qr/^00-[0-9a-f]{32}-[0-9a-f]{16}-01$/, 'W3C trace context');
	ok(!exists $h{authorization}, 'no Authorization unless one is set');
	ok(!exists $h{expect}, 'no Expect');
};

scenario each_trade_has_its_key => sub {
	my %keys;
	$keys{ $_->{headers}{'idempotency-key'} }++ for $wallet->requests;
	is(scalar(grep { $_ > 1 } values %keys), 0, 'none twice');
};

scenario authorization => sub {
	my $file = $s->node->basedir . '/secret';
	PostgreSQL::Test::Utils::append_to_file($file, "Bearer very-secret-token\n");
	chmod 0600, $file;
	$s->set(wallet_auth_file => $file);
	my $n = 0;
	wait_for(sub { $s->trade('auth-' . ++$n); grep { ($_->{headers}{authorization} // '') eq 'Bearer very-secret-token' } $wallet->requests },
		'a request with the secret');
	$s->settled_is('auth-', $n);
	my $log = PostgreSQL::Test::Utils::slurp_file($s->node->logfile);
	unlike($log, qr/very-secret-token/, 'it is not in the log');
	is($s->sql("SELECT count(*) FROM pg_settings WHERE setting ~ 'very-secret'"), 0, 'nor in the settings');
};

# The currencies of a symbol that could be read in two ways: the first separator counts.
scenario two_separators => sub {
	$s->trade('odd-symbol', symbol => 'BTC-USD_T');
	$s->status_is('odd-symbol', 'SETTLED');
	my ($body) = map { JSON::PP::decode_json($_->{body}) } grep { $_->{body} =~ /odd-symbol/ } $wallet->requests;
	is("$body->{base_currency} $body->{quote_currency}", 'BTC USD_T', 'split at the first');
};

done_testing();

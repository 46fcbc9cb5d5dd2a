# The proxy spoils what it is told to spoil, and nothing else.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/lib", "$FindBin::Bin/../lib";
use Errno;
use Socket qw(IPPROTO_TCP TCP_NODELAY);
use Test::More;
use Proxy;
use Walletd qw(new_key read_all read_reply wait_for);

my $wallet = Walletd->start;
$wallet->fund_alice_and_bob;
my $proxy = Proxy->start(upstream => "127.0.0.1:$wallet->{port}", seed => 7);
my $n = 0;

sub connected
{
	return IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $proxy->port, Timeout => 10);
}

sub request { return $wallet->settle_bytes($wallet->trade(trade_id => 'p' . ++$n), new_key()) }

sub last_request { return request() =~ s/\r\n/\r\nConnection: close\r\n/r }

# (bytes, how it ended) of one request on a connection of its own.
sub exchange
{
	my ($seconds) = @_;
	my $socket = connected() or return ('', 'refused');
	# A reset that comes before the request is told to the write, and the read sees an end.
	return ('', 'reset') if !defined $socket->syswrite(last_request()) && $!{ECONNRESET};
	return read_all($socket, $seconds // 10);
}

sub effects { return $wallet->stats->{settle}{effects} }

sub holds
{
	my ($done, $name) = @_;
	return ok(eval { wait_for($done, $name) }, $name);
}

subtest pass => sub {
	my $socket = connected();
	for (1 .. 3)
	{
		$socket->syswrite(request());
		my ($head, $body) = read_reply($socket, \my $buffer);
		like($head, qr/ 200 /, 'an exchange on a kept connection passes');
	}
	is($proxy->stats->{requests}, 3, 'requests are told apart');
	is($proxy->stats->{replies}, 3, 'and replies');
};

subtest cut_reply => sub {
	my $before = effects();
	$proxy->set(mode => 'cut_reply', bytes => 0, count => 1);
	is_deeply([ exchange() ], [ '', 'eof' ], 'at byte 0 nothing arrives');
	$proxy->set(mode => 'cut_reply', bytes => 12, count => 1);
	is_deeply([ exchange() ], [ 'HTTP/1.1 200', 'eof' ], 'at byte 12 twelve bytes do');
	like((exchange())[0], qr/"success":true/, 'once, as told');
	is(effects() - $before, 3, 'each was executed');
	$proxy->set(mode => 'cut_reply', reset => 1);
	is((exchange())[1], 'reset', 'it can be a reset');
};

subtest cut_request => sub {
	my $before = effects();
	for my $bytes (0, 40, 350)
	{
		$proxy->set(mode => 'cut_request', bytes => $bytes);
		like((exchange())[0], qr/\A\z/, "cut after byte $bytes, nothing is answered");
	}
	is(effects(), $before, 'and nothing is executed');
	$proxy->set(mode => 'cut_request', bytes => 40, match => 'GET');
	like((exchange())[0], qr/"success":true/, 'a request that does not match passes');
};

subtest delay => sub {
	my $before = effects();
	$proxy->set(mode => 'delay', ms => 60_000);
	is_deeply([ exchange(0.5) ], [ '', 'timeout' ], 'a reply is held');
	is(effects() - $before, 1, 'whose request was executed');
	$proxy->set(mode => 'delay', ms => 300, side => 'request', count => 1);
	is_deeply([ exchange(0.01) ], [ '', 'timeout' ], 'a request is held');
	holds(sub { effects() - $before == 2 }, 'and delivered, though the client has left');
	$proxy->set(mode => 'jitter', ms => 50);
	like((exchange())[0], qr/"success":true/, 'jitter passes in the end');
};

subtest half_open => sub {
	my $before = effects();
	$proxy->set(mode => 'half_open');
	my $socket = connected();
	$socket->syswrite(request());
	is_deeply([ read_all($socket, 0.3) ], [ '', 'timeout' ], 'nobody answers');
	$proxy->set(mode => 'pass');
	$socket->syswrite(request());
	is_deeply([ read_all($socket, 0.3) ], [ '', 'timeout' ], 'ever again');
	is(effects(), $before, 'and nothing is executed');
};

subtest blackhole => sub {
	my $before = effects();
	my $old = connected();
	$old->syswrite(request());
	read_reply($old, \my $buffer);
	$proxy->set(mode => 'blackhole');
	my $new = connected();
	ok($new, 'a new connection is taken');
	$_->syswrite(request()) for $old, $new;
	is_deeply([ read_all($_, 0.2) ], [ '', 'timeout' ], 'nothing is answered') for $old, $new;
	is(effects() - $before, 1, 'nor executed');
	$proxy->set(mode => 'pass');
	like((read_reply($_, \my $other))[0], qr/ 200 /, 'until it is over') for $old, $new;
};

subtest refuse => sub {
	my $old = connected();
	$old->syswrite(request());
	read_reply($old, \my $buffer);
	$proxy->set(mode => 'refuse');
	is((read_all($old, 5))[1], 'reset', 'what is connected is reset');
	ok(!connected(), 'nobody can connect');
	$proxy->set(mode => 'pass');
	like((exchange())[0], qr/"success":true/, 'until it is over');
	$proxy->set(mode => 'refuse', count => 1);
	like((exchange())[1], qr/reset|refused/, 'a single connection can be reset');
	is((exchange())[1], 'eof', 'and the next one not');
	$proxy->set(mode => 'refuse', probability => 0);
	is((exchange())[1], 'eof', 'without probability none is');
};

subtest wallet_away => sub {
	$proxy->set(mode => 'pass');
	$wallet->stop;
	like((exchange())[1], qr/reset|refused/, 'a wallet that is away cannot be reached');
};

$proxy->stop;
ok(!connected(), 'it ends when it is told to');
done_testing();

package Walletd;

# Starts a walletd of its own for a test, speaks to it, and ends it again.
#
#   my $wallet = Walletd->start(args => ['--sync', 'off']);
#   my $reply = $wallet->settle($wallet->trade(trade_id => 't1'), $key);
#
# Set WALLETD to test another binary, WALLETD_WRAPPER to run it under valgrind.
# Needs core Perl only.

use strict;
use warnings;

use Cwd qw(abs_path);
use Fcntl qw(:flock);
use File::Basename qw(dirname);
use File::Temp qw(tempdir);
use HTTP::Tiny;
use IO::Select;
use IO::Socket::INET;
use JSON::PP ();
use POSIX qw(:sys_wait_h);
use Time::HiRes qw(time sleep);

use Exporter qw(import);
our @EXPORT_OK = qw(new_key wait_for read_all read_reply decode);

my $root = abs_path(dirname(__FILE__) . '/../../..');
my $binary = $ENV{WALLETD} // "$root/wallet/walletd";
my $patience = $ENV{WALLETD_WRAPPER} ? 60 : 15;
my $json = JSON::PP->new->canonical->utf8;
my @started;

sub root { $root }

# One build, also when several tests start at once.
sub build
{
	return if $ENV{WALLETD};
	open my $lock, '>', "$root/wallet/.build.lock" or die "cannot lock: $!";
	flock $lock, LOCK_EX;
	my $output = `make -s -C '$root/wallet' 2>&1`;
	die "walletd does not build:\n$output" if $? != 0;
}

sub start
{
	my ($class, %options) = @_;
	build();
	my $self = bless {
		directory => tempdir('walletd-test.XXXXXX', TMPDIR => 1, CLEANUP => 1),
		args => $options{args} // [],
		listen => $options{listen} // '127.0.0.1:0',
		scheme => $options{scheme} // 'http',
		headers => $options{headers} // {},
	}, $class;
	$self->{db} = $options{db} // ':memory:';
	$self->{db} = "$self->{directory}/ledger.db" if $self->{db} eq 'file';
	push @started, $self;
	$self->launch;
	return $self;
}

# Again with the same database; the port may be another.
sub launch
{
	my ($self) = @_;
	my $port_file = "$self->{directory}/port";
	unlink $port_file;
	my $pid = fork // die "cannot fork: $!";
	if ($pid == 0)
	{
		open STDOUT, '>>', "$self->{directory}/output";
		open STDERR, '>&', \*STDOUT;
		exec(split(' ', $ENV{WALLETD_WRAPPER} // ''), $binary,
			'--listen', $self->{listen}, '--port-file', $port_file,
			'--db', $self->{db}, @{ $self->{args} })
			or POSIX::_exit(127);
	}
	$self->{pid} = $pid;
	wait_for(sub {
		die "walletd ended early:\n" . $self->output
			if waitpid($pid, WNOHANG) == $pid;
		return -s $port_file;
	}, 'walletd to listen');
	open my $in, '<', $port_file or die $!;
	chomp($self->{port} = <$in>);
	return $self;
}

sub output
{
	my ($self) = @_;
	open my $in, '<', "$self->{directory}/output" or return '';
	local $/;
	return scalar(<$in>) // '';
}

# Exit status of a clean end; -1 when it had to be killed.
sub stop
{
	my ($self) = @_;
	my $pid = delete $self->{pid} // return 0;
	kill TERM => $pid;
	my $ended = eval {
		wait_for(sub { waitpid($pid, WNOHANG) == $pid }, 'walletd to end');
		1;
	};
	return $? >> 8 || $? if $ended;
	kill KILL => $pid;
	waitpid $pid, 0;
	return -1;
}

sub crash
{
	my ($self) = @_;
	my $pid = delete $self->{pid};
	kill KILL => $pid;
	waitpid $pid, 0;
}

END
{
	my $status = $?;
	$_->stop for grep { $_->{pid} } @started;
	$? = $status;
}

sub url { my ($self, $path) = @_; return "$self->{scheme}://127.0.0.1:$self->{port}" . ($path // '') }

sub decode { return eval { $json->decode($_[0]) } }

# {status, headers, content, json}; each on a connection of its own.
sub request
{
	my ($self, $method, $path, $content, %headers) = @_;
	my $http = HTTP::Tiny->new(keep_alive => 0, max_redirect => 0, timeout => $patience);
	$content = $json->encode($content) if ref $content;
	my $reply = $http->request($method, $self->url($path), {
		headers => { 'Content-Type' => 'application/json', %{ $self->{headers} }, %headers },
		defined $content ? (content => $content) : (),
	});
	$reply->{json} = decode($reply->{content});
	return $reply;
}

sub get { my ($self, $path, %headers) = @_; return $self->request('GET', $path, undef, %headers) }
sub post { my ($self, @rest) = @_; return $self->request('POST', @rest) }

sub ok_json
{
	my ($self, @request) = @_;
	my $reply = $self->request(@request);
	die "@request[0, 1]: $reply->{status} $reply->{content}" unless $reply->{success} && $reply->{json};
	return $reply->{json};
}

sub audit { return $_[0]->ok_json(GET => '/audit') }
sub stats { return $_[0]->ok_json(GET => '/stats') }

sub ledger
{
	my ($self, $query) = @_;
	my $reply = $self->get('/ledger' . ($query // ''));
	return map { $json->decode($_) } split /\n/, $reply->{content};
}

# {"account currency" => amount}
sub balances
{
	my ($self, $query) = @_;
	return { map { ("$_->{account} $_->{currency}" => $_->{amount}) }
		@{ $self->ok_json(GET => '/balances' . ($query // ''))->{balances} } };
}

sub fund
{
	my ($self, @entries) = @_;
	my @list;
	while (my ($account, $currency, $amount) = splice @entries, 0, 3)
	{
		push @list, { account => $account, currency => $currency, amount => $amount };
	}
	return $self->ok_json(POST => '/admin/accounts', \@list);
}

# alice buys bitcoin from bob, who both can afford a lot of it
sub fund_alice_and_bob { return $_[0]->fund(qw(alice USDT 1000000 bob BTC 100)) }

sub faults
{
	my ($self, @rules) = @_;
	return $self->ok_json(PUT => '/admin/faults', \@rules);
}

sub trade
{
	my ($self, %fields) = @_;
	my %trade = (
		trade_id => 't1', buyer_id => 'alice', seller_id => 'bob',
		buyer_order_id => 'bo-1', seller_order_id => 'so-1',
		base_currency => 'BTC', quote_currency => 'USDT',
		base_amount => '0.5', quote_amount => '25000', price => '50000',
		buyer_fee => '25', seller_fee => '12.5',
		%fields);
	delete $trade{$_} for grep { !defined $trade{$_} } keys %trade;
	return $json->encode(\%trade);
}

sub settle
{
	my ($self, $body, $key, %headers) = @_;
	return $self->post('/api/wallets/settle', $body,
		defined $key ? ('Idempotency-Key' => $key) : (), %headers);
}

sub look_up { my ($self, $key) = @_; return $self->get("/api/wallets/settlements/$key") }

sub connect
{
	my ($self) = @_;
	my $socket = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $self->{port},
		Timeout => $patience) or return;
	return $socket;
}

# The bytes of a settle request.
sub settle_bytes
{
	my ($self, $body, $key) = @_;
	return "POST /api/wallets/settle HTTP/1.1\r\nHost: wallet\r\n" .
		"Content-Type: application/json\r\nIdempotency-Key: $key\r\n" .
		'Content-Length: ' . length($body) . "\r\n\r\n$body";
}

# A settle request over a raw socket: (bytes, how it ended).
sub raw_settle
{
	my ($self, $body, $key, $seconds) = @_;
	my $socket = $self->connect or return ('', 'refused');
	$socket->syswrite($self->settle_bytes($body, $key));
	return read_all($socket, $seconds // $patience);
}

# Everything until the end: eof, reset, or timeout.
sub read_all
{
	my ($socket, $seconds) = @_;
	my $bytes = '';
	my $deadline = time + $seconds;
	my $select = IO::Select->new($socket);
	for (;;)
	{
		my $left = $deadline - time;
		return ($bytes, 'timeout') if $left <= 0 || !$select->can_read($left);
		my $n = $socket->sysread($bytes, 65536, length $bytes);
		return ($bytes, $!{ECONNRESET} ? 'reset' : "error $!") unless defined $n;
		return ($bytes, 'eof') if $n == 0;
	}
}

# One whole reply, as its Content-Length says, from a connection kept alive.
sub read_reply
{
	my ($socket, $buffer) = @_;
	my $deadline = time + $patience;
	my $select = IO::Select->new($socket);
	$$buffer //= '';
	for (;;)
	{
		if ($$buffer =~ /\A(.*?\r\n\r\n)/s)
		{
			my $head = $1;
			my ($length) = $head =~ /^Content-Length: (\d+)/mi;
			if (defined $length && length($$buffer) >= length($head) + $length)
			{
				my $reply = substr $$buffer, 0, length($head) + $length, '';
				return ($head, substr $reply, length $head);
			}
		}
		my $left = $deadline - time;
		return if $left <= 0 || !$select->can_read($left);
		return unless $socket->sysread($$buffer, 65536, length $$buffer);
	}
}

my $keys = 0;

sub new_key
{
	return sprintf '%08x-%04x-4000-8000-%012x', $$, int(time) & 0xffff, ++$keys;
}

sub wait_for
{
	my ($condition, $what, $seconds) = @_;
	my $deadline = time + ($seconds // $patience);
	for (;;)
	{
		my $value = $condition->();
		return $value if $value;
		die "waited in vain for $what\n" if time > $deadline;
		sleep 0.01;
	}
}

1;

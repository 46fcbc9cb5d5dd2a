package RecordingWallet;

# A wallet that settles everything and writes down each request as it came:
# for what is on the wire, which the ledger of the reference wallet cannot show.
#
#   my $wallet = RecordingWallet->start($directory);
#   my @requests = $wallet->requests;    # { line, headers => {}, body }
#
# One connection at a time is served per select round; that is enough.

use strict;
use warnings;

use IO::Select;
use IO::Socket::INET;
use JSON::PP ();
use POSIX ();

my @started;

sub start
{
	my ($class, $directory) = @_;
	my $listener = IO::Socket::INET->new(LocalAddr => '127.0.0.1', LocalPort => 0, Listen => 64, ReuseAddr => 1)
		or die "cannot listen: $!";
	my $self = bless { file => "$directory/requests", port => $listener->sockport }, $class;
	open my $out, '>', $self->{file} or die $!;
	$out->autoflush(1);
	my $pid = fork // die "cannot fork: $!";
	if ($pid == 0)
	{
		eval { serve($listener, $out) };
		POSIX::_exit(0);
	}
	$self->{pid} = $pid;
	push @started, $self;
	return $self;
}

sub stop
{
	my ($self) = @_;
	my $pid = delete $self->{pid} // return;
	kill TERM => $pid;
	waitpid $pid, 0;
}

END
{
	my $status = $?;
	$_->stop for @started;
	$? = $status;
}

sub url { return "http://127.0.0.1:$_[0]{port}" }

sub requests
{
	my ($self) = @_;
	open my $in, '<', $self->{file} or die $!;
	return map { JSON::PP::decode_json($_) } <$in>;
}

sub serve
{
	my ($listener, $out) = @_;
	my $select = IO::Select->new($listener);
	my %buffer;

	local $SIG{TERM} = 'DEFAULT';
	local $SIG{PIPE} = 'IGNORE';
	for (;;)
	{
		for my $socket ($select->can_read)
		{
			if ($socket == $listener)
			{
				$select->add($listener->accept);
				next;
			}
			my $id = fileno $socket;
			if (!sysread $socket, $buffer{$id}, 65536, length($buffer{$id} // ''))
			{
				delete $buffer{$id};
				$select->remove($socket);
				close $socket;
				next;
			}
			answer($socket, $out, \$buffer{$id});
		}
	}
}

# All whole requests in the buffer.
sub answer
{
	my ($socket, $out, $buffer) = @_;
	while ($$buffer =~ /\A(.*?)\r\n(.*?)\r\n\r\n/s)
	{
		my ($line, $head, $start) = ($1, $2, $+[0]);
		my %headers = map { /^([^:]+):\s*(.*)/ ? (lc $1 => $2) : () } split /\r\n/, $head;
		my $length = $headers{'content-length'} // 0;
		return if length $$buffer < $start + $length;
		my $body = substr $$buffer, $start, $length;
		substr($$buffer, 0, $start + $length) = '';

		print $out JSON::PP::encode_json({ line => $line, headers => \%headers, body => $body }), "\n";
		my $reply = JSON::PP::encode_json({ success => JSON::PP::true, message => 'settled',
			settlement_id => sprintf('00000000-0000-4000-8000-%012x', rand 2**40),
			buyer_reservation_released => JSON::PP::true, seller_reservation_released => JSON::PP::true });
		syswrite $socket, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: " .
			length($reply) . "\r\n\r\n$reply";
	}
}

1;

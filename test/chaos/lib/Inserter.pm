package Inserter;

# A matching engine: inserts trades at a rate until it is told to stop,
# reconnects when the server is gone, and writes down which trades were
# certainly committed (ack.N) and of which it cannot know (maybe.N).
#
# An id is in neither file if its transaction certainly did not commit; what
# the wallet books under such an id is a phantom.

use strict;
use warnings;

use Arena;
use DBI;
use POSIX ();
use Time::HiRes qw(time sleep);

my @columns = qw(trade_id symbol buy_order_id sell_order_id buyer_user_id seller_user_id price quantity buyer_fee seller_fee);
my @symbols = ('BTC/USDT', 'ETH/USDT', 'SOL-USDT', 'ETH_BTC');

# Share of each kind of transaction, of 1000.
my @kinds = (
	[ 520, \&single ], [ 270, \&several ], [ 30, \&rolled_back ], [ 40, \&savepoints ],
	[ 30, \&prepared ], [ 30, \&decide ], [ 40, \&unsynchronized ], [ 20, \&malformed ], [ 20, \&poor ]);

# Fork one; its pid.
sub spawn
{
	my (%options) = @_;
	my $pid = fork // die "cannot fork: $!";
	return $pid if $pid;
	my $self = bless { %options, next => 0, prepared => [], histogram => {} }, __PACKAGE__;
	my $ok = eval { $self->run; 1 };
	print STDERR "inserter $options{number}: $@" unless $ok;
	POSIX::_exit($ok ? 0 : 1);
}

sub run
{
	my ($self) = @_;
	my $directory = $self->{directory};
	srand($self->{seed} * 1000 + $self->{number});
	$SIG{$_} = 'DEFAULT' for qw(TERM INT);
	open $self->{state}, '<', "$directory/state" or die $!;
	for my $file (qw(ack maybe))
	{
		open $self->{$file}, '>>', "$directory/$file.$self->{number}" or die $!;
	}
	my $started = time;
	while ($self->{next} < $self->{trades})
	{
		@$self{qw(port weather stop careless)} = Arena::listen_to($self->{state});
		last if $self->{stop} || getppid() != $self->{parent};
		my $early = $started + $self->{next} / $self->{rate} - time;
		sleep($early < 0.2 ? $early : 0.2), next if $early > 0.002;
		$self->reconnect or next;
		$self->transaction;
	}
	$self->write_histogram;
}

sub reconnect
{
	my ($self) = @_;
	return 1 if $self->{db} && $self->{connected} == $self->{port};
	eval { $self->{db}->disconnect } if $self->{db};
	$self->{db} = eval {
		DBI->connect(Arena::dsn($self->{host}, $self->{port}), 'engine', '',
			{ RaiseError => 1, PrintError => 0, PrintWarn => 0, AutoCommit => 1 })
	};
	$self->{connected} = $self->{port};
	sleep 0.05 unless $self->{db};
	$self->{db}{pg_server_prepare} = 0 if $self->{db};
	return $self->{db};
}

sub transaction
{
	my ($self) = @_;
	my $draw = rand 1000;
	for my $kind ($self->{careless} ? [ 1000, \&unsynchronized ] : @kinds)
	{
		next if ($draw -= $kind->[0]) >= 0;
		$self->{ids} = [];
		eval { $kind->[1]->($self); 1 } or $self->failed($@);
		return;
	}
}

# With the session gone nobody knows how its last statement ended.  An error in a
# session that goes on is certain: nothing was committed.
sub failed
{
	my ($self, $error) = @_;
	if ($self->{db}->ping && eval { $self->do('ROLLBACK'); 1 })
	{
		print STDERR "inserter $self->{number}: $error";
		return;
	}
	$self->note(maybe => @{ $self->{ids} });
	delete $self->{db};
	sleep 0.02;
}

sub note
{
	my ($self, $file, @ids) = @_;
	syswrite $self->{$file}, join('', map { "$_\n" } @ids) if @ids;
}

# ---------------------------------------------------------------- rows

sub trade
{
	my ($self, %given) = @_;
	my $n = ++$self->{next};
	my $id = "i$self->{number}-$n";
	my %row = (
		trade_id => $id, symbol => $symbols[rand @symbols], buy_order_id => "b$n", sell_order_id => "s$n",
		buyer_user_id => 'u' . int(rand 20), seller_user_id => 'u' . int(rand 20),
		price => 100 + int(rand 9700) / 100, quantity => (1 + int(rand 1300)) / 100000,
		buyer_fee => int(rand 5) / 10000, seller_fee => int(rand 7) / 100000, %given);
	push @{ $self->{ids} }, $id;
	return '(' . join(', ', map { defined $_ ? "'$_'" : 'NULL' } @row{@columns}) . ')';
}

sub insert
{
	my ($self, @rows) = @_;
	my $table = rand() < 0.5 ? 'public.trades' : 'public.parted';
	return "INSERT INTO $table (" . join(', ', @columns) . ') VALUES ' . join(', ', @rows);
}

sub several_rows { my ($self, $n) = @_; return map { $self->trade } 1 .. $n }

# ---------------------------------------------------------------- transactions

sub do { my ($self, $sql) = @_; return $self->{db}->do($sql) }
sub committed { my ($self) = @_; $self->note(ack => @{ $self->{ids} }) }

sub single
{
	my ($self) = @_;
	my $sql = $self->insert($self->trade);
	my $began = time;
	$self->do($sql);
	my $took = time - $began;
	$self->committed;
	# only if nothing changed meanwhile
	my (undef, $weather) = Arena::listen_to($self->{state});
	$self->{histogram}{ $weather eq $self->{weather} ? $weather : 'mixed' }{ int(log($took * 1e6 + 1) * 20) }++;
}

sub several
{
	my ($self) = @_;
	if (rand() < 0.5)
	{
		$self->do($self->insert($self->several_rows(2 + int rand 12)));
	}
	else
	{
		$self->do('BEGIN');
		$self->do($self->insert($self->several_rows(1 + int rand 5))) for 1 .. 1 + int rand 3;
		$self->do('COMMIT');
	}
	$self->committed;
}

sub rolled_back
{
	my ($self) = @_;
	$self->do('BEGIN');
	$self->do($self->insert($self->several_rows(1 + int rand 5)));
	$self->{ids} = [];
	$self->do('ROLLBACK');
}

sub savepoints
{
	my ($self) = @_;
	my @kept;
	$self->do('BEGIN');
	for (1 .. 3)
	{
		my $before = @{ $self->{ids} };
		$self->do('SAVEPOINT s');
		$self->do($self->insert($self->several_rows(1 + int rand 3)));
		my $keep = rand() < 0.6;
		$self->do($keep ? 'RELEASE SAVEPOINT s' : 'ROLLBACK TO SAVEPOINT s');
		splice @{ $self->{ids} }, $before unless $keep;
	}
	$self->do('COMMIT');
	$self->committed;
}

# Left behind, to be decided later, perhaps after a crash, perhaps by the driver.
sub prepared
{
	my ($self) = @_;
	return $self->several if @{ $self->{prepared} } >= 5;
	my $gid = "g$self->{number}-$self->{next}";
	$self->do('BEGIN');
	$self->do($self->insert($self->several_rows(1 + int rand 4)));
	$self->note(maybe => @{ $self->{ids} });
	push @{ $self->{prepared} }, [ $gid, @{ $self->{ids} } ];
	$self->do("PREPARE TRANSACTION '$gid'");
}

sub decide
{
	my ($self) = @_;
	my $one = shift @{ $self->{prepared} } or return $self->single;
	my ($gid, @ids) = @$one;
	if (rand() < 0.7)
	{
		$self->do("COMMIT PREPARED '$gid'");
		$self->note(ack => @ids);
	}
	else
	{
		$self->do("ROLLBACK PREPARED '$gid'");
	}
}

# May be lost in a crash, and then must not be paid.
sub unsynchronized
{
	my ($self) = @_;
	$self->do('BEGIN');
	$self->do('SET LOCAL synchronous_commit = off');
	$self->do($self->insert($self->several_rows(1 + int rand 6)));
	$self->note(maybe => @{ $self->{ids} });
	$self->do('COMMIT');
}

sub malformed
{
	my ($self) = @_;
	my @ways = ([ symbol => 'nonsense' ], [ quantity => 0 ], [ price => -1 ], [ price => 'NaN' ],
		[ buyer_user_id => '' ], [ buyer_fee => -1 ]);
	$self->do($self->insert($self->trade(@{ $ways[rand @ways] })));
	$self->committed;
}

sub poor
{
	my ($self) = @_;
	$self->do($self->insert($self->trade(rand() < 0.7 ? (buyer_user_id => 'poor') : (seller_user_id => 'nobody'))));
	$self->committed;
}

# ---------------------------------------------------------------- how long an INSERT takes

sub write_histogram
{
	my ($self) = @_;
	open my $out, '>', "$self->{directory}/latency.$self->{number}" or die $!;
	for my $weather (sort keys %{ $self->{histogram} })
	{
		my $buckets = $self->{histogram}{$weather};
		print $out "$weather $_ $buckets->{$_}\n" for sort { $a <=> $b } keys %$buckets;
	}
	close $out;
}

1;

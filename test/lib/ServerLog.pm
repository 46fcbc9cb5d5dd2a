package ServerLog;

# The server's log in JSON, and the fields of its details.
#
#   my $log = ServerLog->new($node);               # logging_collector, jsonlog
#   my @lines = $log->lines('ST002');              # of that SQLSTATE, oldest first
#   $lines[0]{message}; $lines[0]{fields}{class};

use strict;
use warnings;

use JSON::PP ();

sub new { my ($class, $node) = @_; return bless { node => $node }, $class }

# Values are quoted like JSON strings where they need it.
sub fields
{
	my ($detail) = @_;
	my %fields;
	my $json = JSON::PP->new->allow_nonref;
	while ($detail =~ /\G(?: ?)([a-z_]+)=("(?:[^"\\]|\\.)*"|[^ "]+)/gc)
	{
		my ($name, $value) = ($1, $2);
		die "$name twice: $detail" if exists $fields{$name};
		$fields{$name} = $value =~ /^"/ ? $json->decode($value) : $value;
	}
	die "not a list of fields: $detail" if (pos($detail) // 0) < length $detail;
	return \%fields;
}

# A line that is still being written is left out.
sub all
{
	my ($self) = @_;
	my @lines;
	for my $file (sort glob($self->{node}->data_dir . '/log/*.json'))
	{
		open my $in, '<', $file or die "$file: $!";
		while (my $line = <$in>)
		{
			push @lines, JSON::PP::decode_json($line) if $line =~ /\n\z/;
		}
	}
	return @lines;
}

sub lines
{
	my ($self, $state) = @_;
	my @lines = grep { ($_->{state_code} // '') eq $state } $self->all;
	$_->{fields} = fields($_->{detail}) for grep { defined $_->{detail} } @lines;
	return @lines;
}

# Those about one trade.
sub of_trade
{
	my ($self, $state, $trade) = @_;
	return grep { ($_->{fields}{trade_id} // '') eq $trade } $self->lines($state);
}

1;

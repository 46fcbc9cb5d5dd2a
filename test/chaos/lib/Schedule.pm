package Schedule;

# Which faults come in which order, from the seed alone.
#
# All is drawn before the first fault, so that what happens in the run cannot
# change what comes: a fault that picks a process has drawn a number from 0 to 1
# and takes the process at that part of the list.

use strict;
use warnings;

# catalogue: { name, group, weight, draw => sub -> parameters, play => sub,
# each => [ parameters, ... ] }: with these instead of drawn ones every path of the
# fault is gone.
sub draw
{
	my ($seed, $n, @catalogue) = @_;
	my $total = 0;
	my @events;
	$total += $_->{weight} for @catalogue;
	srand($seed);
	for (1 .. $n)
	{
		my $at = rand $total;
		my ($fault) = grep { ($at -= $_->{weight}) < 0 } @catalogue;
		push @events, event($fault, $fault->{draw});
	}
	srand;
	return @events;
}

sub event
{
	my ($fault, $draw) = @_;
	return { fault => $fault, pause => 0.05 + rand(0.5), parameters => { pick => rand(), $draw ? $draw->() : () } };
}

# Each fault, then what has a second way, then a third, ...: what undoes another
# one's effect comes in between.
sub rehearsal
{
	my (@catalogue) = @_;
	my ($way, @events, @more) = (0);
	do
	{
		@more = grep { $way == 0 || $_->{each} && $_->{each}[$way] } @catalogue;
		push @events, map { my $fault = $_; event($fault, $fault->{each} ? sub { %{ $fault->{each}[$way] } } : $fault->{draw}) } @more;
		$way++;
	} while (@more);
	return @events;
}

sub text
{
	my ($event) = @_;
	my $parameters = $event->{parameters};
	return join ' ', $event->{fault}{name},
		map { "$_=" . (ref $parameters->{$_} ? '...' : $parameters->{$_} =~ /^\d*\.\d{3,}$/ ? sprintf('%.3f', $parameters->{$_}) : $parameters->{$_}) }
		sort keys %$parameters;
}

sub one_of { return $_[rand @_] }
sub between { my ($low, $high) = @_; return sprintf('%.2f', $low + rand($high - $low)) }

1;

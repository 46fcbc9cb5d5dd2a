package Schedule;

# Which faults come in which order, from the seed alone.
#
# All is drawn before the first fault, so that what happens in the run cannot
# change what comes: a fault that picks a process has drawn a number from 0 to 1
# and takes the process at that part of the list.

use strict;
use warnings;

# catalogue: { name, group, weight, draw => sub -> parameters, play => sub }.
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
		push @events, {
			fault => $fault, pause => 0.05 + rand(0.5),
			parameters => { pick => rand(), $fault->{draw} ? $fault->{draw}->() : () },
		};
	}
	srand;
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

package Progress;

# Does anything settle at all?  No fault lasts as long as our patience, so a
# stretch of time without a new effect at the wallet is a failure of ours.  A run
# that ends with equal books because nothing was sent would show nothing.

use strict;
use warnings;

use Calm;
use Time::HiRes qw(time);

my $patience = 60;
my ($effects, $since, $looked) = (-1, undef, 0);

sub look
{
	my ($arena) = @_;
	my $now = time;
	return if $now - $looked < 2;
	$looked = $now;
	# its count starts from 0 when it has crashed: any other number will do
	my $seen = eval { $arena->{wallet}->stats->{settle}{effects} } // $effects;
	($effects, $since) = ($seen, $now) if $seen != $effects || !$arena->is_loaded;
	return if $now - ($since //= $now) < $patience;
	$arena->violation("nothing was settled for $patience s, last fault $arena->{last_fault}:\n" . Calm::state_of($arena));
	$since = $now;
}

1;

set terminal svg size 720,420 font 'sans-serif,13' background rgb 'white'
set output output_file
set datafile separator '\t'
set title 'A wallet that takes 50 ms'
set xlabel 'requests in flight'
set ylabel 'trades settled per second'
set yrange [0:*]
set format y "%'.0f"
set grid lc rgb '#dddddd'
set key left top noenhanced
plot for [i=2:columns] data using 1:i with linespoints pt 7 lw 2 title columnheader(i), \
	data using 1:($1 / 0.05) with lines dt 2 lc rgb '#888888' title 'the most: in flight / 50 ms'

/*
 * fuzz_main.h
 *	  The end of a target of the fuzzer: see fuzz.h.
 */
#ifdef LIBFUZZER

int			LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	run_one((const char *) data, size);
	return 0;
}

#else

/* A buffer of exactly this size, so that a sanitizer sees one byte too many. */
static void
run_copy(const char *data, size_t size)
{
	char	   *copy = malloc(size > 0 ? size : 1);

	memcpy(copy, data, size);
	run_one(copy, size);
	free(copy);
}

static void
mutate(const char *data, size_t size, int mutations)
{
	char		copy[8192];

	for (int i = 0; i < mutations && size > 0 && size < sizeof copy; i++)
	{
		memcpy(copy, data, size);
		for (long n = 1 + random() % 4; n > 0; n--)
		{
			size_t		at = (size_t) random() % size;

			switch (random() % 3)
			{
				case 0:
					copy[at] = (char) random();
					break;
				case 1:
					copy[at] ^= (char) (1 << random() % 8);
					break;
				default:
					copy[at] = "{}[]\",:\\0e"[random() % 10];
			}
		}
		run_copy(copy, random() % 4 == 0 ? (size_t) random() % size : size);
	}
}

static int
is_visible(const struct dirent *entry)
{
	return entry->d_name[0] != '.';
}

int
main(void)
{
	char		path[512];
	char		data[8192];
	struct dirent **entries;
	int			n = scandir(CORPUS, &entries, is_visible, alphasort);

	if (n <= 0)
	{
		printf("Bail out! no corpus\n");
		return 1;
	}
	srandom(20);
	for (int i = 0; i < n; i++)
	{
		FILE	   *file;
		size_t		size;

		snprintf(path, sizeof path, CORPUS "/%s", entries[i]->d_name);
		file = fopen(path, "rb");
		require(file != NULL, "cannot open a corpus file");
		size = fread(data, 1, sizeof data, file);
		fclose(file);
		run_copy(data, size);
		mutate(data, size, MUTATIONS / n);
		free(entries[i]);
	}
	free(entries);
	printf("ok 1 - %d files and %d mutations of each\n1..1\n", n, MUTATIONS / n);
	return 0;
}

#endif

"""Networks `F(x, c_noise, **conditions)`: x `[b, channels]`, c_noise `[b]`, result like x."""

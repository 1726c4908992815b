include $(sort $(wildcard $(BR2_EXTERNAL_LODGE_PATH)/package/*/*.mk))
